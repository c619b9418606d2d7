import math

import numpy as np
import points
import pytest

from gpumlp.formulas.activations import ACTIVATIONS, prime_recording, softmax
from gpumlp.formulas.play import play

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def far(dtype, largest):
    return np.concatenate([np.linspace(-largest, largest, 2001), [0.0, -0.0, 1e-30, -1e-30]]).astype(dtype)


@DTYPES
@pytest.mark.parametrize("f", points.ELEMENTWISE, ids=points.by_name)
def test_an_activation_neither_warns_nor_overflows_however_large_z_is(f, dtype):
    z = far(dtype, 80 if f.name == "exp" else 1e4)
    with np.errstate(all="raise", under="ignore"):
        a = f.value(z)
        prime = play(prime_recording(f), z, a)
    assert a.dtype == dtype
    assert np.isfinite(a).all()
    assert np.isfinite(prime).all()


@DTYPES
def test_softmax_neither_warns_nor_overflows(dtype):
    z = far(dtype, 1e4).reshape(-1, 5)
    with np.errstate(all="raise", under="ignore"):
        a = softmax(z)
    assert a.dtype == dtype
    assert np.allclose(a.sum(axis=1), 1, rtol=1e-6)


def logistic(z):
    return 1 / (1 + math.exp(-z))


TEXTBOOK = {
    "identity": lambda z: z,
    "sigmoid": logistic,
    "tanh": math.tanh,
    "relu": lambda z: max(z, 0.0),
    "leaky_relu": lambda z: z if z >= 0 else 0.01 * z,
    "elu": lambda z: z if z >= 0 else math.exp(z) - 1,
    "selu": lambda z: 1.0507009873554805 * (z if z >= 0 else 1.6732632423543772 * (math.exp(z) - 1)),
    "silu": lambda z: z * logistic(z),
    "gelu": lambda z: 0.5 * z * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
    "softplus": lambda z: math.log(1 + math.exp(z)),
    "softsign": lambda z: z / (1 + abs(z)),
    "hard_tanh": lambda z: min(max(z, -1.0), 1.0),
    "mish": lambda z: z * math.tanh(math.log(1 + math.exp(z))),
    "exp": math.exp,
}


@pytest.mark.parametrize("f", points.ELEMENTWISE, ids=points.by_name)
def test_an_activation_is_its_textbook_formula(f):
    z = [-5.5, -2.0, -1.0, -0.3, 0.0, 0.7, 1.0, 1.5, 6.0]
    wanted = [TEXTBOOK[f.name.partition("(")[0]](t) for t in z]
    assert np.allclose(f.value(np.array(z)), wanted, rtol=1e-12, atol=1e-14)


def test_softmax_is_its_textbook_formula():
    z = np.array([[1.0, 2.0, -1.0], [0.0, 0.0, 0.0]])
    assert np.allclose(softmax(z), np.exp(z) / np.exp(z).sum(axis=1, keepdims=True))


@DTYPES
@pytest.mark.parametrize("f", points.ELEMENTWISE, ids=points.by_name)
def test_the_derivative_holds_where_many_networks_begin(f, dtype):
    """At z = 0, where all units stand if the weights are zero; at a kink it is one of the two sides."""
    z = np.zeros(1, dtype)
    prime = float(np.asarray(play(prime_recording(f), z, f.value(z))).reshape(-1)[0])
    h = 1e-6
    left, right = (float((f.value(np.array([s * h])) - f.value(np.array([0.0])))[0] / (s * h)) for s in (-1, 1))
    assert min(abs(prime - left), abs(prime - right)) < 1e-5


def test_every_activation_is_tested_against_its_textbook_formula():
    assert set(TEXTBOOK) == {name for name in ACTIVATIONS if not ACTIVATIONS.get(name).row_wise}
