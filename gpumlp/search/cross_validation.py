"""cross_validate: the folds of one estimator, trained at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.model_selection._validation import (
    _aggregate_score_dicts,
    _insert_error_scores,
    _normalize_score_results,
    _warn_or_raise_about_fit_failures,
)
from sklearn.utils import Bunch
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, _routing_enabled, process_routing
from sklearn.utils.validation import indexable

from gpumlp.errors import ConfigurationError
from gpumlp.search.evaluation import Evaluation


def cross_validate(
    estimator: Any,
    X: Any,
    y: Any = None,
    *,
    groups: Any = None,
    scoring: Any = None,
    cv: Any = None,
    n_jobs: int | None = None,
    verbose: int = 0,
    params: dict[str, Any] | None = None,
    pre_dispatch: Any = "2*n_jobs",
    return_train_score: bool = False,
    return_estimator: bool = False,
    return_indices: bool = False,
    error_score: Any = np.nan,
) -> dict[str, Any]:
    """Return scores and times of an estimator by fold, as scikit-learn's function of this name does.

    The folds are models of one stack on one copy of the data, where FleetSearchCV has candidates so; each comes to what
    it would come to alone.

    groups, ...   as of sklearn.model_selection.cross_validate; n_jobs and pre_dispatch are for folds that cannot be
                  trained together
    Raises        ValueError where all fits fail; warns FitFailedWarning where some do
    """
    if error_score != "raise" and not isinstance(error_score, int | float):
        raise ConfigurationError(f'error_score={error_score!r}: expected a number or "raise"')
    X, y = indexable(X, y)
    cv = check_cv(cv, y, classifier=is_classifier(estimator))
    scorer = check_scoring(estimator, scoring=scoring, raise_exc=error_score == "raise")
    routed = _routed(estimator, scorer, cv, groups, params or {})
    splits = list(cv.split(X, y, **routed.splitter.split))
    evaluation = Evaluation(
        estimator,
        X,
        y,
        scorer,
        routed.estimator.fit,
        routed.scorer.score,
        return_train_score,
        error_score,
        verbose,
        n_jobs,
        pre_dispatch,
        return_estimator,
    )
    out = evaluation.run([None], splits)
    _warn_or_raise_about_fit_failures(out, error_score)
    if callable(scoring):
        _insert_error_scores(out, error_score)
    collected = _aggregate_score_dicts(out)
    found = {name: collected[name] for name in ("fit_time", "score_time")}
    if return_estimator:
        found["estimator"] = collected["estimator"]
    if return_indices:
        found["indices"] = dict(zip(("train", "test"), zip(*splits, strict=True), strict=True))
    for part in ("test", "train")[: 1 + return_train_score]:
        by_name = _normalize_score_results(collected[f"{part}_scores"])
        found |= {f"{part}_{name}": scores for name, scores in by_name.items()}
    return found


def _routed(estimator: Any, scorer: Any, cv: Any, groups: Any, params: dict[str, Any]) -> Any:
    """Return which parameters go to the splitter, to the estimator's fit and to the scorer."""
    if not _routing_enabled():
        return Bunch(splitter=Bunch(split={"groups": groups}), estimator=Bunch(fit=params), scorer=Bunch(score={}))
    if groups is not None:
        raise ValueError("with metadata routing enabled, pass groups as one of params")
    router = MetadataRouter(owner="cross_validate")
    consumers = {"splitter": (cv, "split"), "estimator": (estimator, "fit"), "scorer": (scorer, "score")}
    for name, (consumer, callee) in consumers.items():
        router.add(method_mapping=MethodMapping().add(caller="fit", callee=callee), **{name: consumer})
    return process_routing(router, "fit", **params)
