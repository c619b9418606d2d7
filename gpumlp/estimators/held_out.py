"""Scoring a network while it is trained, on rows that are not trained on."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from sklearn.metrics import check_scoring

from gpumlp.estimators.inputs import Rows
from gpumlp.estimators.weights import LiveNetwork
from gpumlp.network.network import Network


def score_of(mlp: Any, rows: Rows) -> Callable[[Network], float]:
    """Return a function that scores a network as it is: by the estimator's `scoring`, or its own score."""
    if mlp.scoring is None:
        return lambda net: float(mlp._score_outputs(net.predict(rows.X), rows))
    scorer = check_scoring(mlp, scoring=mlp.scoring)
    weights = {} if rows.weights is None else {"sample_weight": rows.weights}
    present = for_complete_rows(mlp, rows)

    def score(net: Network) -> float:
        present._take(net)
        return float(scorer(present, rows.X, rows.y, **weights))

    return score


def for_complete_rows(mlp: Any, rows: Rows) -> Any:
    """Return an estimator with the same weights that takes rows as the network does, checked and filled already."""
    other = copy(mlp)
    other._live, other.n_features_in_, other.missing = LiveNetwork(), rows.X.shape[1], "error"
    other.embeddings = None  # which may name columns; what is learned of them tells which they are
    if hasattr(other, "feature_names_in_"):
        del other.feature_names_in_
    return other
