"""Cost functions of one example: what each output unit adds, and the gradient dC/da.

a are the outputs, y the targets, c the cost of the example; natural logarithms; terms with y = 0 count as 0 where that
is the limit. The gradients are those of the values, checked by differences: a widely copied list on the web has four of
them wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpumlp.errors import ConfigurationError
from gpumlp.formulas.activations import softplus
from gpumlp.formulas.registry import NOT_NEGATIVE, POSITIVE, REALS, UNIT, Interval, Registry
from gpumlp.formulas.vocabulary import absolute, at_least, exp, log, log1p, sign, sqrt, where


@dataclass(frozen=True)
class Cost:
    """A definition C = outer(sum over the outputs of term(a, y)).

    term            term(a, y): what one output unit adds
    outer           cost of the example from the sum of its terms; None: the sum itself
    gradient        gradient(a, y, c) -> dC/da, c being the cost of the example; None: derived by the chain rule
    matched         the output activation for which delta = a - y exactly
    matched_term    matched_term(z, a, y): the term under the matched activation, finite where `term` is not;
                    for softmax z stands for log a
    domain          where the outputs must lie
    targets         where the targets must lie
    on_simplex      whether the outputs of an example must sum to 1, which only softmax does
    labels          the targets of the right class and of the others when labels are given
    label_smoothing share of the target that is spread over all classes
    formula, source the definition as people write it, and where it comes from
    """

    name: str
    term: Callable[[Any, Any], Any]
    gradient: Callable[[Any, Any, Any], Any] | None = None
    outer: Callable[[Any], Any] | None = None
    matched: str | None = None
    matched_term: Callable[[Any, Any, Any], Any] | None = None
    domain: Interval = REALS
    targets: Interval = REALS
    on_simplex: bool = False
    labels: tuple[float, float] = (1.0, 0.0)
    label_smoothing: float = 0.0
    formula: str = ""
    source: str = ""


def unless_zero(y: Any, x: Any) -> Any:
    """Return x where y is not zero and 1 elsewhere, so that y log(x) is 0 for y = 0."""
    return where(y > 0, x, 1)


def _expect_positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ConfigurationError(f"{name}={value}: expected a number above 0")


def categorical_cross_entropy(label_smoothing: float = 0.0) -> Cost:
    """Return the cost of one class out of several."""
    if not 0 <= label_smoothing < 1:
        raise ConfigurationError(f"label_smoothing={label_smoothing}: expected a share of at least 0 and below 1")
    return Cost(
        f"categorical_cross_entropy(label_smoothing={label_smoothing})"
        if label_smoothing
        else "categorical_cross_entropy",
        term=lambda a, y: -y * log(unless_zero(y, a)),
        gradient=lambda a, y, c: -y / a,
        matched="softmax",
        matched_term=lambda z, a, y: -y * z,
        domain=UNIT,
        targets=UNIT,
        on_simplex=True,
        label_smoothing=label_smoothing,
        formula="-sum y ln a",
        source="Bishop 2006, eq. 4.108; smoothing: Szegedy et al. 2016",
    )


def exponential(tau: float = 1.0) -> Cost:
    """Return the one cost here that is not a sum over outputs."""
    _expect_positive("tau", tau)
    return Cost(
        f"exponential(tau={tau})",
        term=lambda a, y: (a - y) * (a - y),
        outer=lambda s: tau * exp(s / tau),
        gradient=lambda a, y, c: (2 / tau) * (a - y) * c,
        formula="tau exp(sum (a - y)^2 / tau)",
        source="stats.stackexchange.com/q/154879",
    )


def huber(width: float = 1.0) -> Cost:
    """Return the cost that is quadratic within `width` of the target and linear beyond."""
    _expect_positive("width", width)
    return Cost(
        f"huber(width={width})",
        term=lambda a, y: where(
            absolute(a - y) <= width, 0.5 * (a - y) * (a - y), width * (absolute(a - y) - 0.5 * width)
        ),
        gradient=lambda a, y, c: where(absolute(a - y) <= width, a - y, width * sign(a - y)),
        formula="sum of d^2 / 2 if |d| <= width else width (|d| - width / 2), d = a - y",
        source="Huber 1964",
    )


COSTS: Registry[Cost] = Registry("cost", Cost)

QUADRATIC = Cost(
    "quadratic",
    term=lambda a, y: 0.5 * (a - y) * (a - y),
    gradient=lambda a, y, c: a - y,
    matched="identity",
    formula="1/2 sum (a - y)^2",
    source="Nielsen ch. 1, eq. 6",
)
CROSS_ENTROPY = Cost(
    "cross_entropy",
    term=lambda a, y: -(y * log(unless_zero(y, a)) + (1 - y) * log1p(-where(y < 1, a, 0))),
    gradient=lambda a, y, c: (a - y) / ((1 - a) * a),
    matched="sigmoid",
    matched_term=lambda z, a, y: softplus(z) - y * z,
    domain=UNIT,
    targets=UNIT,
    formula="-sum [y ln a + (1 - y) ln(1 - a)]",
    source="Nielsen ch. 3, eq. 57",
)
HELLINGER = Cost(
    "hellinger",
    term=lambda a, y: 0.5**0.5 * (sqrt(a) - sqrt(y)) * (sqrt(a) - sqrt(y)),
    gradient=lambda a, y, c: (sqrt(a) - sqrt(y)) / (2**0.5 * sqrt(a)),
    domain=POSITIVE,
    targets=NOT_NEGATIVE,
    formula="1/sqrt(2) sum (sqrt a - sqrt y)^2",
    source="stats.stackexchange.com/q/154879",
)
KULLBACK_LEIBLER = Cost(
    "kullback_leibler",
    term=lambda a, y: y * log(unless_zero(y, y) / a),
    gradient=lambda a, y, c: -y / a,
    matched="softmax",
    matched_term=lambda z, a, y: y * (log(unless_zero(y, y)) - z),
    domain=POSITIVE,
    targets=NOT_NEGATIVE,
    formula="sum y ln(y / a)",
    source="Kullback and Leibler 1951",
)
GENERALIZED_KULLBACK_LEIBLER = Cost(
    "generalized_kullback_leibler",
    term=lambda a, y: y * log(unless_zero(y, y) / a) - y + a,
    gradient=lambda a, y, c: (a - y) / a,
    matched="exp",
    matched_term=lambda z, a, y: y * (log(unless_zero(y, y)) - z) - y + a,
    domain=POSITIVE,
    targets=NOT_NEGATIVE,
    formula="sum [y ln(y / a) - y + a]",
    source="Csiszar 1991",
)
ITAKURA_SAITO = Cost(
    "itakura_saito",
    term=lambda a, y: y / a - log(y / a) - 1,
    gradient=lambda a, y, c: (a - y) / (a * a),
    domain=POSITIVE,
    targets=POSITIVE,  # it is infinite at y = 0
    formula="sum [y / a - ln(y / a) - 1]",
    source="Itakura and Saito 1968",
)
MEAN_ABSOLUTE = Cost(
    "mean_absolute",
    term=lambda a, y: absolute(a - y),
    gradient=lambda a, y, c: sign(a - y),
    formula="sum |a - y|",
    source="Laplace 1774",
)
POISSON = Cost(
    "poisson",
    term=lambda a, y: a - y * log(a),
    gradient=lambda a, y, c: 1 - y / a,
    matched="exp",
    matched_term=lambda z, a, y: a - y * z,
    domain=POSITIVE,
    targets=NOT_NEGATIVE,
    formula="sum [a - y ln a]",
    source="the negative log-likelihood of counts, less ln y!",
)
HINGE = Cost(
    "hinge",
    term=lambda a, y: at_least(1 - y * a, 0),
    gradient=lambda a, y, c: where(y * a < 1, -y, 0),
    targets=Interval(-1.0, 1.0, True, True),
    labels=(1.0, -1.0),
    formula="sum max(0, 1 - y a), y = -1 or 1",
    source="Cortes and Vapnik 1995",
)

for _definition in (
    QUADRATIC,
    CROSS_ENTROPY,
    categorical_cross_entropy,
    exponential,
    HELLINGER,
    KULLBACK_LEIBLER,
    GENERALIZED_KULLBACK_LEIBLER,
    ITAKURA_SAITO,
    MEAN_ABSOLUTE,
    huber,
    POISSON,
    HINGE,
):
    COSTS.register(_definition)
COSTS.seal()
