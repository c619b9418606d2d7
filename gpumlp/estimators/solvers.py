"""The stochastic solvers: scikit-learn's update rules and learning rates as gpumlp's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpumlp.formulas.update_rules import UpdateRule, momentum, nesterov
from gpumlp.formulas.vocabulary import power, sqrt
from gpumlp.training.schedules import Schedule

STOCHASTIC = ("sgd", "adam")
SMALLEST_RATE = 1e-6  # an adaptive rate that has come down to this gives up


def adam(beta_1: float, beta_2: float, epsilon: float) -> UpdateRule:
    """Return Adam in the order of computation that the paper calls more efficient: epsilon is not corrected."""

    def per_weight(w: Any, g: Any, s: Any, h: Any) -> tuple[Any, ...]:
        m = h.beta1 * s.m + h.beta1_rest * g
        v = h.beta2 * s.v + h.beta2_rest * (g * g)
        return w - h.rate * m / (sqrt(v) + h.epsilon), m, v

    return UpdateRule(
        "adam_uncorrected_epsilon",
        per_weight,
        state=("m", "v"),
        defaults={"beta1": beta_1, "beta2": beta_2, "epsilon": epsilon},
        per_step=lambda t, h: {
            "beta1_rest": 1 - h.beta1,
            "beta2_rest": 1 - h.beta2,
            "rate": h.eta * sqrt(1 - power(h.beta2, t)) / (1 - power(h.beta1, t)),
        },
        formula="as adam, with w <- w - eta sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)",
        source="Kingma and Ba 2015, end of section 2",
    )


def rule_of(solver: str, params: dict[str, Any]) -> UpdateRule:
    """Return the update rule that the estimator's parameters describe."""
    if solver == "adam":
        return adam(params["beta_1"], params["beta_2"], params["epsilon"])
    return (nesterov if params["nesterovs_momentum"] else momentum)(params["momentum"])


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
