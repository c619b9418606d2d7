"""The formulas in which scikit-learn's MLP differs from gpumlp's own definitions."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from gpumlp.formulas import update_rules
from gpumlp.formulas.activations import softplus
from gpumlp.formulas.costs import COSTS, Cost
from gpumlp.formulas.update_rules import UpdateRule
from gpumlp.formulas.vocabulary import at_least, at_most


def adam(beta1: float, beta2: float, epsilon: float) -> UpdateRule:
    """Return Adam with an epsilon that is added to the root of the second moment before its bias is corrected."""
    published = update_rules.adam(beta1, beta2, epsilon)
    return replace(
        published,
        name="adam_with_fixed_epsilon",
        per_step=lambda t, h: {**published.per_step(t, h), "floor": h.epsilon},
        formula="as adam, with eps sqrt(1 - b2^t) in place of eps beside the root",
        source="Kingma and Ba 2015, the remark on efficiency before section 2.1",
    )


def sgd(momentum: float, nesterov: bool) -> UpdateRule:
    """Return gradient descent with one of the two kinds of momentum."""
    return (update_rules.nesterov if nesterov else update_rules.momentum)(momentum)


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
