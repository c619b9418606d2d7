"""Temperature: one number by which scores are divided, so that probabilities say how often they are right."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from gpumlp.shapes import HostArray

COLDEST, HOTTEST = 1e-2, 1e2
TINY = 1e-12


def scaled(probabilities: HostArray, temperature: float) -> HostArray:
    """Return probabilities whose log-odds are divided by the temperature.

    probabilities   (n_rows, n_outputs): of one class out of several, which sum to 1, or of a single output
    """
    p = probabilities.astype(np.float64)
    if p.shape[1] == 1:
        p = np.hstack([1 - p, p])
    scores = np.log(np.maximum(p, TINY)) / temperature
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    kept: HostArray = shares[:, -probabilities.shape[1] :].astype(probabilities.dtype)
    return kept


def best_temperature(probabilities: HostArray, right: HostArray, weights: HostArray | None) -> float:
    """Return the temperature with the smallest mean log loss on rows that were not trained on.

    right    (n_rows,) number of the right class, or whether the single output should be 1
    Source   Guo, Pleiss, Sun and Weinberger 2017
    """
    columns = np.asarray(right, np.int64).reshape(-1)

    def loss(log_temperature: float) -> Any:
        p = scaled(probabilities.astype(np.float64), float(np.exp(log_temperature)))
        p = np.hstack([1 - p, p]) if p.shape[1] == 1 else p
        return np.average(-np.log(np.maximum(p[np.arange(len(p)), columns], TINY)), weights=weights)

    found = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x))
