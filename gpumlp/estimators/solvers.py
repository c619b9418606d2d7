"""The stochastic solvers: scikit-learn's update rules and learning rates as gpumlp's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gpumlp.formulas import update_rules
from gpumlp.formulas.update_rules import UpdateRule
from gpumlp.training.schedules import Schedule

STOCHASTIC = ("sgd", "adam")
SMALLEST_RATE = 1e-6  # an adaptive rate that has come down to this gives up


def adam(beta_1: float, beta_2: float, epsilon: float) -> UpdateRule:
    """Return Adam with an epsilon that is added to the root of the second moment before its bias is corrected."""
    published = update_rules.adam(beta_1, beta_2, epsilon)
    return replace(
        published,
        name="adam_with_fixed_epsilon",
        per_step=lambda t, h: {**published.per_step(t, h), "floor": h.epsilon},
        formula="as adam, with eps / sqrt(1 - b2^t) in place of eps",
        source="Kingma and Ba 2015, the remark on efficiency before section 2.1",
    )


def sgd(momentum: float, nesterov: bool) -> UpdateRule:
    """Return gradient descent with one of the two kinds of momentum."""
    return (update_rules.nesterov if nesterov else update_rules.momentum)(momentum)


def rule_of(solver: str, params: dict[str, Any]) -> UpdateRule:
    """Return the update rule that the estimator's parameters describe."""
    if solver == "adam":
        return adam(params["beta_1"], params["beta_2"], params["epsilon"])
    return sgd(params["momentum"], params["nesterovs_momentum"])


@dataclass
class Rate:
    """The learning rate as it changes between epochs.

    kind     "constant", "invscaling" or "adaptive"
    initial  the first rate, of which `factor` is taken at present
    power    exponent of "invscaling"
    """

    kind: str
    initial: float
    power: float
    factor: float = 1.0

    def schedule(self) -> Schedule:
        """Return a schedule that gives each epoch the factor of its beginning."""
        return Schedule(self.kind, lambda step, epoch, epochs: self.factor)

    def epoch_ended(self, rows_seen: int) -> None:
        """Let the rate fall with the rows seen so far, if it is to."""
        if self.kind == "invscaling":
            self.factor = (rows_seen + 1) ** -self.power

    def after_plateau(self) -> str:
        """Answer that there was no progress for long: return "" if the rate was lowered, else why training stops."""
        if self.kind != "adaptive":
            return "Stopping."
        if self.initial * self.factor <= SMALLEST_RATE:
            return "Learning rate too small. Stopping."
        self.factor /= 5.0
        return ""
