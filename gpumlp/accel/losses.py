"""scikit-learn's losses as costs: as gpumlp's own, but for probabilities that are held away from 0 and 1."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from gpumlp.formulas.activations import softplus
from gpumlp.formulas.costs import COSTS, Cost
from gpumlp.formulas.vocabulary import at_least, at_most


@cache
def cost_of(loss: str, output: str, dtype: str) -> Cost | None:
    """Return what scikit-learn's loss is for this output activation, before a mean over outputs; None: not known here.

    Probabilities are held between eps and 1 - eps of the dtype, where the loss is computed and only there.
    """
    eps = float(np.finfo(dtype).eps)
    low, high = float(np.log(eps)), float(np.log1p(-eps))

    def held(log_a: Any) -> Any:
        return at_most(at_least(log_a, low), high)

    return {
        ("squared_error", "identity"): COSTS.get("quadratic"),
        ("poisson", "exp"): COSTS.get("generalized_kullback_leibler"),
        ("log_loss", "softmax"): replace(
            COSTS.get("categorical_cross_entropy"),
            name=f"held_categorical_cross_entropy(eps={eps})",
            matched_term=lambda z, a, y: -y * held(z),
        ),
        ("log_loss", "logistic"): replace(
            COSTS.get("cross_entropy"),
            name=f"held_cross_entropy(eps={eps})",
            matched_term=lambda z, a, y: -held(y * z - softplus(z)),  # of targets 0 and 1: the log of what is right
        ),
    }.get((loss, output))
