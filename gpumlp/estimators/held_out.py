"""Scoring a network while it is trained, on rows that are not trained on."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from sklearn.metrics import check_scoring

from gpumlp.estimators.inputs import Rows
from gpumlp.estimators.weights import take_weights
from gpumlp.network.network import Network


def score_of(mlp: Any, net: Network, rows: Rows) -> Callable[[], float]:
    """Return a function that scores the network as it is: by the estimator's `scoring`, or its own score."""
    if mlp.scoring is None:
        return lambda: float(mlp._score_outputs(net.predict(rows.X), rows))
    scorer = check_scoring(mlp, scoring=mlp.scoring)
    weights = {} if rows.weights is None else {"sample_weight": rows.weights}
    return lambda: float(scorer(as_of_now(mlp, net, rows), rows.X, rows.y, **weights))


def as_of_now(mlp: Any, net: Network, rows: Rows) -> Any:
    """Return an estimator with the network's present weights, for rows that are complete already."""
    present = copy(mlp)
    present.coefs_, present.intercepts_ = take_weights(net)
    present.n_features_in_, present.missing = rows.X.shape[1], "error"
    vars(present).pop("feature_names_in_", None)
    return present
