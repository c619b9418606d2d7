"""FleetSearchCV: a search over parameters by cross-validation, with all its fits trained at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
from sklearn import get_config
from sklearn.base import clone, is_classifier
from sklearn.metrics._scorer import _MultimetricScorer
from sklearn.model_selection import ParameterGrid, ParameterSampler, check_cv
from sklearn.model_selection._search import BaseSearchCV
from sklearn.model_selection._validation import _insert_error_scores, _warn_or_raise_about_fit_failures
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_method_params, _num_samples, indexable

from gpumlp.errors import ConfigurationError
from gpumlp.search.evaluation import Evaluation, Result, Split
from gpumlp.search.halving import ROWS, best_index, best_of, bounds_of, part_of, plan_rounds

Candidates = Sequence[dict[str, Any]]
COUNT = Interval(Integral, 1, None, closed="left")


class FleetSearchCV(BaseSearchCV):  # type: ignore[misc]
    """A search that takes the place of GridSearchCV, RandomizedSearchCV and their halving kin for gpumlp's estimators.

    All fits of a round, each candidate on each split, are models of as few stacks as may be, which are trained at
    once on one copy of the data; every fit comes to what it would come to alone. Fits that cannot be models of a stack
    are done one by one as scikit-learn does them: those by "lbfgs", with n_models > 1, of data on a CUDA device, and
    of other estimators. Of a Pipeline that ends in one of gpumlp's estimators the steps before are fitted for each
    candidate and split, and all last steps are trained at once.

    Parameters
    ----------
    estimator : estimator
        MLPClassifier or MLPRegressor, or a Pipeline that ends in one; anything else works, too.
    param_grid : dict or list of dicts, default=None
        Values by parameter, of which all combinations are candidates.
    param_distributions : dict or list of dicts, default=None
        Values or scipy distributions by parameter, from which candidates are drawn. Give this or param_grid.
    n_iter : int, default=10
        How many are drawn.
    scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score
        As of scikit-learn's searches; n_jobs and pre_dispatch are for fits that are done one by one.
    random_state : int, RandomState instance or None, default=None
        From what candidates, and rows of successive halving, are drawn.
    successive_halving : bool, default=False
        Whether there are rounds, in each of which the best of the last one are given more of the resource; the best
        candidate of the last round wins.
    resource : str, default="n_samples"
        What a round has more of: rows, or a parameter of the estimator that counts something, such as "max_iter"; each
        round trains its candidates anew.
    factor : float, default=3
        By how much more, and of how many candidates one goes on.
    max_resources : int or "auto", default="auto"
        The most that a round has; "auto": all rows.
    min_resources : int, "smallest" or "exhaust", default="exhaust"
        What the first round has; "smallest": 1 epoch, or twice as many rows as there are splits, for each class;
        "exhaust": as much as lets the last round have most.
    aggressive_elimination : bool, default=False
        Whether the first rounds are repeated without more of the resource until few enough candidates are left.

    Attributes
    ----------
    cv_results_, best_estimator_, best_score_, best_params_, best_index_, scorer_, n_splits_, refit_time_, multimetric_
        As of scikit-learn's searches. A fit that is trained with others has its share of their time as fit_time.
    n_resources_, n_candidates_ : list of int
        What each round had of the resource, and how many candidates; only with successive_halving, as all that follow.
    n_iterations_, n_required_iterations_, n_possible_iterations_, n_remaining_candidates_ : int
        The rounds, those after which few enough candidates are left, those in which the resource can grow, and the
        candidates that would have gone on from the last one.
    min_resources_, max_resources_ : int
        What the first round had, and the most that one could have.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseSearchCV._parameter_constraints,
        "param_grid": [dict, list, None],
        "param_distributions": [dict, list, None],
        "n_iter": [COUNT],
        "random_state": ["random_state"],
        "successive_halving": ["boolean"],
        "resource": [str],
        "factor": [Interval(Real, 1, None, closed="neither")],
        "max_resources": [COUNT, StrOptions({"auto"})],
        "min_resources": [COUNT, StrOptions({"exhaust", "smallest"})],
        "aggressive_elimination": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any,
        param_grid: Any = None,
        *,
        param_distributions: Any = None,
        n_iter: int = 10,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = 5,
        verbose: int = 0,
        pre_dispatch: Any = "2*n_jobs",
        random_state: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        successive_halving: bool = False,
        resource: str = ROWS,
        factor: float = 3,
        max_resources: int | str = "auto",
        min_resources: int | str = "exhaust",
        aggressive_elimination: bool = False,
    ) -> None:
        super().__init__(
            estimator=estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.param_grid = param_grid
        self.param_distributions = param_distributions
        self.n_iter = n_iter
        self.random_state = random_state
        self.successive_halving = successive_halving
        self.resource = resource
        self.factor = factor
        self.max_resources = max_resources
        self.min_resources = min_resources
        self.aggressive_elimination = aggressive_elimination

    def fit(self, X: Any, y: Any = None, **params: Any) -> FleetSearchCV:
        """Fit and score every candidate on every split, and the best one on all rows.

        X, y      as of the estimator's fit
        params    of the estimator's fit, of the scorer and of the splitter, as of scikit-learn's searches
        """
        if not get_config()["skip_parameter_validation"]:
            self._validate_params()
        scorer, metric = self._get_scorers()
        X, y = indexable(X, y)
        routed = self._get_routed_params_for_fit(_check_method_params(X, params=params))
        self._checked_cv_orig = cv = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        self.n_splits_ = cv.get_n_splits(X, y, **routed.splitter.split)
        estimator = clone(self.estimator)
        evaluation = Evaluation(
            estimator,
            X,
            y,
            scorer,
            routed.estimator.fit,
            routed.scorer.score,
            self.return_train_score,
            self.error_score,
            self.verbose,
            self.n_jobs,
            self.pre_dispatch,
        )
        rounds = Rounds(self, evaluation, lambda: cv.split(X, y, **routed.splitter.split))
        if self.successive_halving:
            self._halve(rounds, metric, X, y)
        else:
            rounds.evaluate(self._candidates(), rounds.splits())
        self._choose(rounds, metric)
        if self.refit:
            self._refit(estimator, X, y, routed.estimator.fit)
        self.scorer_ = scorer._scorers if isinstance(scorer, _MultimetricScorer) else scorer
        self.cv_results_ = rounds.results
        return self

    def _candidates(self) -> Candidates:
        if (self.param_grid is None) == (self.param_distributions is None):
            raise ConfigurationError("expected one of param_grid and param_distributions; give exactly one")
        if self.param_grid is not None:
            return list(ParameterGrid(self.param_grid))
        return list(ParameterSampler(self.param_distributions, self.n_iter, random_state=self.random_state))

    def _halve(self, rounds: Rounds, metric: Any, X: Any, y: Any) -> None:
        """Evaluate round after round."""
        if not isinstance(metric, str):
            raise ConfigurationError(
                f"refit={self.refit!r} names no metric by which successive_halving could choose; name one of scoring"
            )
        candidates, smallest, largest = self._candidates(), *bounds_of(self, X, y)
        if any(self.resource in candidate for candidate in candidates):
            raise ConfigurationError(f"{self.resource} is the resource; leave it out of what is searched for")
        plan = plan_rounds(
            len(candidates),
            self.factor,
            smallest,
            largest,
            self.min_resources == "exhaust",
            self.aggressive_elimination,
        )
        self.n_resources_, self.n_candidates_ = [], []
        for number in range(plan.n_rounds):
            amount, n = plan.resource(number), len(candidates)
            self.n_resources_.append(amount)
            self.n_candidates_.append(n)
            if self.verbose:
                print(f"Round {number + 1} of {plan.n_rounds}: {n} candidates, {self.resource}={amount}")
            splits = rounds.splits()
            if self.resource == ROWS:
                splits = part_of(splits, amount / _num_samples(X), self.random_state)
            else:
                candidates = [{**candidate, self.resource: amount} for candidate in candidates]
            rounds.evaluate(candidates, splits, {"iter": [number] * n, "n_resources": [amount] * n})
            candidates = best_of(rounds.results, metric, plan.n_kept(n), number)
        self.min_resources_, self.max_resources_ = plan.smallest, plan.largest
        self.n_iterations_, self.n_required_iterations_ = plan.n_rounds, plan.required
        self.n_possible_iterations_, self.n_remaining_candidates_ = plan.possible, len(candidates)

    def _choose(self, rounds: Rounds, metric: Any) -> None:
        """Publish the best candidate, if it is said what that is."""
        first, results = rounds.out[0]["test_scores"], rounds.results
        self.multimetric_ = isinstance(first, dict)
        if callable(self.scoring) and self.multimetric_:
            self._check_refit_for_multimetric(first)
            metric = self.refit
        if not (self.refit or not self.multimetric_):
            return
        if self.successive_halving and not callable(self.refit):
            self.best_index_ = best_index(results, metric)
        else:
            self.best_index_ = self._select_best_index(self.refit, metric, results)
        if not callable(self.refit):
            self.best_score_ = results[f"mean_test_{metric}"][self.best_index_]
        self.best_params_ = results["params"][self.best_index_]

    def _refit(self, estimator: Any, X: Any, y: Any, fit_params: dict[str, Any]) -> None:
        self.best_estimator_ = clone(estimator).set_params(**clone(self.best_params_, safe=False))
        began = perf_counter()
        self.best_estimator_.fit(*((X,) if y is None else (X, y)), **fit_params)
        self.refit_time_ = perf_counter() - began
        if hasattr(self.best_estimator_, "feature_names_in_"):
            self.feature_names_in_ = self.best_estimator_.feature_names_in_


class Rounds:
    """What was evaluated in a search so far.

    out       what each fit came to, as scikit-learn collects it
    results   the table of all candidates, as in cv_results_
    """

    def __init__(self, search: FleetSearchCV, evaluation: Evaluation, split: Callable[[], Iterable[Split]]) -> None:
        self.out: list[Result] = []
        self.results: dict[str, Any] = {}
        self._search, self._evaluation, self._split = search, evaluation, split
        self._candidates: list[dict[str, Any]] = []
        self._more: dict[str, list[Any]] = defaultdict(list)

    def splits(self) -> list[Split]:
        """Return the splits, drawn anew where they are drawn at random; raise ValueError if there are not n_splits_."""
        found = list(self._split())
        if len(found) != self._search.n_splits_:
            raise ValueError(f"cv announces {self._search.n_splits_} splits and yields {len(found)}")
        return found

    def evaluate(
        self, candidates: Candidates, splits: Sequence[Split], more: dict[str, list[Any]] | None = None
    ) -> None:
        """Add candidates to the table, with further columns.

        Warns    FitFailedWarning where fits failed; raises ValueError where all of them did
        """
        search, n = self._search, len(candidates)
        if search.verbose > 0:
            print(f"Fitting {len(splits)} folds for each of {n} candidates, totalling {len(splits) * n} fits")
        out = self._evaluation.run(candidates, splits)
        if not out:
            raise ValueError("no fit was made; cv yields no splits, or there are no candidates")
        _warn_or_raise_about_fit_failures(out, search.error_score)
        if callable(search.scoring):
            _insert_error_scores(out, search.error_score)
        self.out += out
        self._candidates += candidates
        for name, values in (more or {}).items():
            self._more[name] += values
        self.results = search._format_results(self._candidates, search.n_splits_, self.out, self._more)
