"""Postponing: an estimator's fit, up to the point where it would be trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from gpumlp.estimators.base import BaseMLP
from gpumlp.estimators.inputs import Rows
from gpumlp.estimators.stochastic import Fitting, prepare
from gpumlp.shapes import is_on_device

Settle = Callable[[Any, Rows, "Rows | None"], "tuple[Rows, Rows | None]"]


def last_step(estimator: Any) -> Any:
    """Return the estimator at the end of a pipeline, or of pipelines in one another."""
    while isinstance(estimator, Pipeline) and type(estimator).fit is Pipeline.fit and estimator.steps:
        estimator = estimator.steps[-1][1]
    return estimator


def can_be_postponed(estimator: Any, X: Any, y: Any) -> bool:
    """Tell whether an estimator is, or ends in, one model that adam or sgd trains on data of the host."""
    mlp = last_step(estimator)
    return (
        isinstance(mlp, BaseMLP)
        and type(mlp).fit is BaseMLP.fit
        and mlp.n_models == 1
        and mlp._is_stochastic()
        and y is not None
        and not is_on_device(X)
    )


def postpone(estimator: Any, X: Any, y: Any, fit_params: dict[str, Any], settle: Settle) -> Fitting:
    """Return the fit of an estimator, ready to be trained; of a pipeline, the steps before the last one are fitted.

    settle   settle(mlp, rows, held) -> the same examples, as rows of tables that fits share
    """
    mlp = last_step(estimator)
    prepared: list[Fitting] = []

    def take_over(rows: Rows, held: Rows | None, random: np.random.RandomState) -> Any:
        prepared.append(prepare(mlp, *settle(mlp, rows, held), random, incremental=False))
        return mlp

    mlp._postpone = take_over
    try:
        estimator.fit(X, y, **fit_params)
    finally:
        del mlp._postpone
    (fitting,) = prepared
    return fitting
