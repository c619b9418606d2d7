"""Evaluation: every candidate fitted and scored on every split, with all fits trained together that can be."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.metrics._scorer import _MultimetricScorer
from sklearn.model_selection._validation import _fit_and_score, _score
from sklearn.utils import _safe_indexing
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_method_params, _num_samples

from gpumlp.estimators.embeddings import are_by_name
from gpumlp.search.fits import Fit, train_together
from gpumlp.search.postponing import can_be_postponed, last_step
from gpumlp.search.tables import Tables, Whole, check_whole

Split = tuple[Any, Any]  # numbers of the rows to fit on, and of those to score on
Result = dict[str, Any]  # of one fit: test_scores, fit_time, ... as scikit-learn collects them


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What all fits of a search or of a cross-validation have in common.

    scorer, ...    as scikit-learn's searches have them
    fit_params     of the estimators' fit, score_params of the scorer; those with an item a row are divided like X
    n_jobs, ...    of fits that cannot be trained together with others, which joblib shares out
    """

    estimator: Any
    X: Any
    y: Any
    scorer: Any
    fit_params: Mapping[str, Any]
    score_params: Mapping[str, Any]
    return_train_score: bool
    error_score: Any
    verbose: int
    n_jobs: int | None
    pre_dispatch: Any
    return_estimator: bool = False

    def run(self, candidates: Sequence[dict[str, Any] | None], splits: Sequence[Split]) -> list[Result]:
        """Return what each candidate came to on each split: all splits of the first candidate, then of the next."""
        found: dict[tuple[int, int], Result] = {}
        together = {c for c, candidate in enumerate(candidates) if self._can_be_postponed(candidate)}
        found.update(self._run_together({c: candidates[c] for c in together}, splits))
        found.update(self._run_alone({c: p for c, p in enumerate(candidates) if c not in together}, splits))
        if self.verbose > 1:
            for (c, s), result in sorted(found.items(), key=lambda item: item[0]):
                if c in together:
                    print(_line(candidates[c], s, len(splits), result))
        return [found[c, s] for c in range(len(candidates)) for s in range(len(splits))]

    def _configured(self, candidate: dict[str, Any] | None) -> Any:
        estimator = clone(self.estimator)
        return estimator if candidate is None else estimator.set_params(**clone(candidate, safe=False))

    def _can_be_postponed(self, candidate: dict[str, Any] | None) -> bool:
        return can_be_postponed(self._configured(candidate), self.X, self.y)

    # ---------------------------------------------------------------- together

    def _run_together(
        self, candidates: Mapping[int, dict[str, Any] | None], splits: Sequence[Split]
    ) -> dict[tuple[int, int], Result]:
        if not candidates:
            return {}
        fits: dict[tuple[int, int], Fit] = {}
        tables, wholes = Tables(), _Wholes(self.X, self.y)
        for s, (train, _) in enumerate(splits):
            parts, rows = _Parts(self, train), _safe_indexing(np.arange(_num_samples(self.X)), train)
            for c, candidate in candidates.items():
                fit = fits[c, s] = Fit(self._configured(candidate), may_fail=self.error_score != "raise")
                whole = wholes.of(fit.estimator)
                fit.prepare(*parts.of(whole), tables, whole, rows)
        train_together(list(fits.values()))
        found = {}
        for s, split in enumerate(splits):
            scoring = _Scoring(self, split)
            found.update({(c, s): scoring.result(fits.pop((c, s))) for c in candidates})
        return found

    # ---------------------------------------------------------------- alone

    def _run_alone(
        self, candidates: Mapping[int, dict[str, Any] | None], splits: Sequence[Split]
    ) -> dict[tuple[int, int], Result]:
        if not candidates:
            return {}
        places = [(c, s) for c in candidates for s in range(len(splits))]
        results = Parallel(n_jobs=self.n_jobs, pre_dispatch=self.pre_dispatch)(
            delayed(_fit_and_score)(
                clone(self.estimator),
                self.X,
                self.y,
                scorer=self.scorer,
                train=splits[s][0],
                test=splits[s][1],
                verbose=self.verbose,
                parameters=candidates[c],
                fit_params=self.fit_params,
                score_params=self.score_params,
                return_train_score=self.return_train_score,
                return_n_test_samples=True,
                return_times=True,
                return_estimator=self.return_estimator,
                split_progress=(s, len(splits)),
                error_score=self.error_score,
            )
            for c, s in places
        )
        return dict(zip(places, results, strict=True))


class _Wholes:
    """The data as fits on all of them would check them, once for each dtype."""

    def __init__(self, X: Any, y: Any) -> None:
        self._X, self._y = X, y
        self._found: dict[Hashable, Whole | None] = {}

    def of(self, estimator: Any) -> Whole | None:
        """Return the checked data for an estimator."""
        mlp = last_step(estimator)
        key = (type(mlp), mlp.dtype, mlp.missing, are_by_name(mlp.embeddings), mlp is estimator)
        if key not in self._found:
            self._found[key] = check_whole(estimator, self._X, self._y)
        return self._found[key]


class _Parts:
    """The rows of one split that are fitted on, taken once for all candidates."""

    def __init__(self, evaluation: Evaluation, rows: Any) -> None:
        self._evaluation, self._rows = evaluation, rows
        self._found: dict[int, tuple[Any, Any]] = {}
        self._fit_params = _check_method_params(evaluation.X, params=evaluation.fit_params, indices=rows)

    def of(self, whole: Whole | None) -> tuple[Any, Any, dict[str, Any]]:
        """Return X, y and the parameters of fit, out of the checked data or of those that the user gave."""
        if id(whole) not in self._found:
            source = self._evaluation if whole is None else whole
            self._found[id(whole)] = _safe_indexing(source.X, self._rows), _safe_indexing(source.y, self._rows)
        return *self._found[id(whole)], self._fit_params


class _Scoring:
    """The rows of one split, on which the fits of all candidates are scored."""

    def __init__(self, evaluation: Evaluation, split: Split) -> None:
        self._evaluation, (train, test) = evaluation, split
        self._test = self._part(test)
        self._train = self._part(train) if evaluation.return_train_score else None

    def _part(self, rows: Any) -> tuple[Any, Any, dict[str, Any]]:
        """Return X and y of the rows, and the scorer's parameters."""
        given = self._evaluation
        params = _check_method_params(given.X, params=given.score_params, indices=rows)
        return _safe_indexing(given.X, rows), _safe_indexing(given.y, rows), params

    def result(self, fit: Fit) -> Result:
        """Return what a fit came to, `error_score` for all if it failed."""
        result: Result = {"fit_error": fit.error}
        began = perf_counter()
        result["test_scores"] = self._scores(fit, self._test)
        result["score_time"] = 0.0 if fit.error else perf_counter() - began
        if self._train is not None:
            result["train_scores"] = self._scores(fit, self._train)
        result |= {"n_test_samples": _num_samples(self._test[0]), "fit_time": fit.seconds}
        if self._evaluation.return_estimator:
            result["estimator"] = fit.estimator
        return result

    def _scores(self, fit: Fit, part: tuple[Any, Any, dict[str, Any]]) -> Any:
        scorer, error_score = self._evaluation.scorer, self._evaluation.error_score
        if fit.error is None:
            X, y, params = part
            return _score(fit.estimator, X, y, scorer, params, error_score)
        if isinstance(scorer, _MultimetricScorer):
            return dict.fromkeys(scorer._scorers, error_score)
        return error_score


def _line(candidate: dict[str, Any] | None, split: int, n_splits: int, result: Result) -> str:
    """Return the line that tells of one fit."""
    settings = ", ".join(f"{name}={value}" for name, value in sorted((candidate or {}).items()))
    scores = result["test_scores"]
    told = scores if isinstance(scores, dict) else {"score": scores}
    came_to = ", ".join(f"{name}={value:.3f}" for name, value in told.items())
    seconds = result["fit_time"] + result["score_time"]
    return f"[CV {split + 1}/{n_splits}] {settings}{'; ' if settings else ''}{came_to}, {seconds:.1f} s"
