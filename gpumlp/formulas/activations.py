"""Activation functions a = f(z): their values and, where it is shorter than the derived one, their derivative f'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gpumlp.formulas.derivative import differentiate
from gpumlp.formulas.registry import NOT_NEGATIVE, OPEN_UNIT, POSITIVE, REALS, Interval, Registry
from gpumlp.formulas.term import Recording, record
from gpumlp.formulas.vocabulary import absolute, at_least, at_most, exp, expm1, log1p, tanh, where


@dataclass(frozen=True)
class Activation:
    """A definition a = f(z).

    value      value(z) -> a
    prime      prime(z, a) -> f'(z); None: derived from `value` by the chain rule. Where it reads only a, the layer
               needs no buffer for z
    range      where a lies: a cost that is not defined there is refused
    row_wise   whether the units of a row depend on each other (softmax), so that it can stand only at the output
    formula    the definition as people write it
    source     equation or paper
    """

    name: str
    value: Callable[[Any], Any]
    prime: Callable[[Any, Any], Any] | None = None
    range: Interval = REALS
    row_wise: bool = False
    formula: str = ""
    source: str = ""


@cache
def value_recording(activation: Activation) -> Recording:
    """Return f as a Recording of the input z."""
    return record(activation.value, "z")


@cache
def prime_recording(activation: Activation) -> Recording:
    """Return f' as a Recording of the inputs z and a, derived by the chain rule where it is not written."""
    if activation.prime is not None:
        return record(activation.prime, "z", "a")
    return differentiate(activation.value, ("z",), by="z", result="a")


def reads_z(activation: Activation) -> bool:
    """Tell whether f' needs z; if not, the layer's z and a may be one buffer."""
    return prime_recording(activation).reads("z")


def sigmoid(z: Any) -> Any:
    """1 / (1 + exp(-z)), computed so that nothing overflows."""
    e = exp(-absolute(z))
    return where(z < 0, e, 1) / (1 + e)


def softplus(z: Any) -> Any:
    """log(1 + exp(z)), computed so that nothing overflows."""
    return at_least(z, 0) + log1p(exp(-absolute(z)))


def softmax(z: Any) -> Any:
    """exp(z_k) / sum_j exp(z_j) along the last axis of an array."""
    e = np.exp(z - np.max(z, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def silu_prime(z: Any, a: Any) -> Any:
    """Return s + a (1 - s), where s = sigmoid(z)."""
    s = sigmoid(z)
    return s + a * (1 - s)


GELU_SCALE, GELU_CUBIC = 0.7978845608028654, 0.044715  # sqrt(2 / pi), and the constant of the tanh form


def gelu(z: Any) -> Any:
    """Return the tanh form of z Phi(z)."""
    return 0.5 * z * (1 + tanh(GELU_SCALE * (z + GELU_CUBIC * (z * z * z))))


def gelu_prime(z: Any, a: Any) -> Any:
    """Return the derivative of the tanh form."""
    t = tanh(GELU_SCALE * (z + GELU_CUBIC * (z * z * z)))
    return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * (GELU_SCALE * (1 + 3 * GELU_CUBIC * (z * z)))


def leaky_relu(slope: float = 0.01) -> Activation:
    """Return ReLU with a slope below zero."""
    return Activation(
        f"leaky_relu(slope={slope})",
        value=lambda z: where(z < 0, slope * z, z),
        prime=lambda z, a: where(z < 0, slope, 1) if slope <= 0 else where(a < 0, slope, 1),
        range=REALS if slope > 0 else NOT_NEGATIVE,
        formula="z if z >= 0 else slope z",
        source="Maas, Hannun and Ng 2013",
    )


def elu(alpha: float = 1.0) -> Activation:
    """Return the exponential linear unit."""
    return Activation(
        f"elu(alpha={alpha})",
        value=lambda z: where(z < 0, alpha * expm1(at_most(z, 0)), z),
        prime=lambda z, a: where(a < 0, a + alpha, 1) if alpha > 0 else where(z < 0, a + alpha, 1),
        range=Interval(-alpha) if alpha > 0 else NOT_NEGATIVE,
        formula="z if z >= 0 else alpha (exp(z) - 1)",
        source="Clevert, Unterthiner and Hochreiter 2016",
    )


SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805

ACTIVATIONS: Registry[Activation] = Registry("activation", Activation)

IDENTITY = Activation("identity", lambda z: z, lambda z, a: 1, formula="z", source="the linear unit")
SIGMOID = Activation(
    "sigmoid",
    sigmoid,
    lambda z, a: a * (1 - a),
    range=OPEN_UNIT,
    formula="1 / (1 + exp(-z))",
    source="Nielsen, Neural Networks and Deep Learning, ch. 1, eq. 3",
)
TANH = Activation(
    "tanh",
    tanh,
    lambda z, a: 1 - a * a,
    range=Interval(-1.0, 1.0),
    formula="tanh(z)",
    source="LeCun et al. 1998, Efficient BackProp",
)
RELU = Activation(
    "relu",
    lambda z: at_least(z, 0),
    lambda z, a: where(a > 0, 1, 0),
    range=NOT_NEGATIVE,
    formula="max(z, 0)",
    source="Nair and Hinton 2010",
)
SELU = Activation(
    "selu",
    lambda z: SELU_SCALE * where(z < 0, SELU_ALPHA * expm1(at_most(z, 0)), z),
    lambda z, a: where(a < 0, a + SELU_SCALE * SELU_ALPHA, SELU_SCALE),
    range=Interval(-SELU_SCALE * SELU_ALPHA),
    formula="1.0507 (z if z >= 0 else 1.6733 (exp(z) - 1))",
    source="Klambauer et al. 2017",
)
SILU = Activation(
    "silu",
    lambda z: z * sigmoid(z),
    silu_prime,
    range=Interval(-0.2785),
    formula="z / (1 + exp(-z))",
    source="Elfwing, Uchibe and Doya 2018; Ramachandran, Zoph and Le 2017 (swish)",
)
GELU = Activation(
    "gelu",
    gelu,
    gelu_prime,
    range=Interval(-0.1701),
    formula="0.5 z (1 + tanh(0.79788 (z + 0.044715 z^3)))",
    source="Hendrycks and Gimpel 2016, the tanh form",
)
SOFTPLUS = Activation(
    "softplus",
    softplus,
    lambda z, a: -expm1(-a),
    range=POSITIVE,
    formula="log(1 + exp(z))",
    source="Dugas et al. 2001",
)
SOFTSIGN = Activation(
    "softsign",
    lambda z: z / (1 + absolute(z)),
    lambda z, a: (1 - absolute(a)) * (1 - absolute(a)),
    range=Interval(-1.0, 1.0),
    formula="z / (1 + |z|)",
    source="Glorot and Bengio 2010",
)
HARD_TANH = Activation(
    "hard_tanh",
    lambda z: at_most(at_least(z, -1), 1),
    lambda z, a: where(absolute(z) < 1, 1, 0),  # not by a, which dropout scales and rounds
    range=Interval(-1.0, 1.0, True, True),
    formula="min(max(z, -1), 1)",
    source="Collobert et al. 2011",
)
MISH = Activation(
    "mish",
    lambda z: z * tanh(softplus(z)),
    range=Interval(-0.3089),
    formula="z tanh(log(1 + exp(z)))",
    source="Misra 2019",
)
EXP = Activation("exp", exp, lambda z, a: a, range=POSITIVE, formula="exp(z)", source="the inverse of the log link")
SOFTMAX = Activation(
    "softmax",
    softmax,
    range=OPEN_UNIT,
    row_wise=True,
    formula="exp(z_k) / sum_j exp(z_j)",
    source="Bridle 1990",
)

for _definition, *_aliases in (
    (IDENTITY, "linear"),
    (SIGMOID, "logistic"),
    (TANH,),
    (RELU,),
    (leaky_relu,),
    (elu,),
    (SELU,),
    (SILU, "swish"),
    (GELU,),
    (SOFTPLUS,),
    (SOFTSIGN,),
    (HARD_TANH,),
    (MISH,),
    (EXP,),
    (SOFTMAX,),
):
    ACTIVATIONS.register(_definition, *_aliases)
ACTIVATIONS.seal()
