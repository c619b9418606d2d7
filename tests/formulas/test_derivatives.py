import numpy as np
import points
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gpumlp.formulas import vocabulary as v
from gpumlp.formulas.activations import Activation, prime_recording, reads_z, sigmoid, softplus
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.derivative import differentiate
from gpumlp.formulas.play import play
from gpumlp.formulas.printers import cuda_function


def away_from_kinks(n=400):
    z = np.random.default_rng(1).uniform(-6, 6, n)
    return z[(np.abs(z) > 1e-2) & (np.abs(np.abs(z) - 1) > 1e-2)]


def central(f, x, h=1e-5):
    return (f(x + h) - f(x - h)) / (2 * h)


@pytest.mark.parametrize("f", points.ELEMENTWISE, ids=points.by_name)
def test_the_derived_derivative_is_the_written_one(f):
    z = away_from_kinks()
    a = f.value(z)
    derived = play(differentiate(f.value, ("z",), by="z", result="a"), z, a)
    assert np.allclose(derived, play(prime_recording(f), z, a), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("f", points.ELEMENTWISE, ids=points.by_name)
def test_a_derivative_agrees_with_central_differences(f):
    z = away_from_kinks()
    prime = np.broadcast_to(play(prime_recording(f), z, f.value(z)), z.shape)
    scale = np.maximum(1, np.abs(prime))
    assert (np.abs(prime - central(f.value, z)) / scale).max() < 1e-8


@pytest.mark.parametrize("f", points.ELEMENTWISE, ids=points.by_name)
def test_a_derivative_without_z_does_not_need_it(f):
    z = away_from_kinks()
    a = f.value(z)
    prime = play(prime_recording(f), z, a)
    without = play(prime_recording(f), np.full_like(z, np.nan), a)
    assert reads_z(f) != np.array_equal(np.broadcast_to(prime, z.shape), np.broadcast_to(without, z.shape))


@pytest.mark.parametrize("value", [sigmoid, softplus])
def test_the_derivative_of_a_formula_in_two_halves_holds_where_they_meet(value):
    """z = 0 is what a network sees whose weights start at zero."""
    derived = play(differentiate(value, ("z",), by="z"), np.array([0.0]))
    assert np.allclose(derived, central(value, np.array([0.0])), atol=1e-8)


@pytest.mark.parametrize("cost", [c for c in COSTS.definitions() if c.outer is None], ids=points.by_name)
def test_the_derived_gradient_of_a_cost_is_the_written_one(cost):
    a, y = points.inside(cost.domain), points.inside(cost.targets, seed=5)
    smooth = (np.abs(np.abs(a - y) - 1) > 1e-2) & (np.abs(a - y) > 1e-2) & (np.abs(y * a - 1) > 1e-2)
    a, y = a[smooth], y[smooth]
    derived = play(differentiate(cost.term, ("a", "y"), by="a"), a, y)
    assert np.allclose(derived, cost.gradient(a, y, None), rtol=1e-10, atol=1e-10)


# ---------------------------------------------------------------- any composition

LEAF = st.sampled_from([lambda x: x, lambda x: x, lambda x: 0.5 * x + 0.3, lambda x: 1.7, lambda x: x - 2])
WRAP = {
    "tanh": v.tanh,
    "sin": v.sin,
    "cos": v.cos,
    "exp": lambda u: v.exp(v.sin(u)),
    "expm1": lambda u: v.expm1(v.tanh(u)),
    "log": lambda u: v.log(2 + v.sin(u)),
    "log1p": lambda u: v.log1p(u * u),
    "sqrt": lambda u: v.sqrt(1 + u * u),
    "power": lambda u: v.power(1.5 + v.sin(u), 2.7),
    "exponent": lambda u: v.power(1.3, v.tanh(u)),
    "cube": lambda u: v.tanh(u) ** 3,
    "reciprocal": lambda u: 1 / (2 + v.cos(u)),
    "negative": lambda u: -u,
    "square": lambda u: u**2,
}
JOIN = {
    "add": lambda u, w: u + w,
    "subtract": lambda u, w: u - w,
    "multiply": lambda u, w: u * w,
    "divide": lambda u, w: u / (3 + v.sin(w)),
    "power": lambda u, w: v.power(2 + v.sin(u), v.tanh(w)),
}


def wrapped(inner):
    return st.tuples(st.sampled_from(sorted(WRAP)), inner).map(lambda t: lambda x: WRAP[t[0]](t[1](x)))


def joined(inner):
    return st.tuples(st.sampled_from(sorted(JOIN)), inner, inner).map(lambda t: lambda x: JOIN[t[0]](t[1](x), t[2](x)))


FORMULAS = st.recursive(LEAF, lambda inner: st.one_of(wrapped(inner), joined(inner)), max_leaves=6)


def complex_step(formula, x):
    """Return the derivative as exactly as the value: no difference is taken."""
    return np.broadcast_to(np.imag(formula(x + 1e-200j)) / 1e-200, x.shape)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(FORMULAS)
def test_the_derivative_of_any_composition_is_that_of_a_complex_step(formula):
    x = np.linspace(-1.2, 1.3, 17)
    with np.errstate(all="ignore"):
        wanted = complex_step(formula, x)
        assume(np.isfinite(wanted).all() and np.abs(wanted).max() < 1e6)
        found = np.broadcast_to(play(differentiate(formula, ("x",), by="x"), x), x.shape)
    assert np.allclose(found, wanted, rtol=1e-9, atol=1e-9 * max(1, np.abs(wanted).max()))


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(FORMULAS, FORMULAS, FORMULAS)
def test_the_derivative_of_a_choice_is_that_of_the_chosen_side(condition, left, right):
    x = np.linspace(-1.2, 1.3, 17)
    for bound in (0.1, -0.7):
        formula = lambda x: v.where(condition(x) > bound, left(x), right(x)) * x  # noqa: B023, E731
        with np.errstate(all="ignore"):
            chosen = np.broadcast_to(condition(x) > bound, x.shape)
            wanted = np.where(chosen, complex_step(lambda x: left(x) * x, x), complex_step(lambda x: right(x) * x, x))
            assume(np.isfinite(wanted).all() and np.abs(wanted).max() < 1e6)
            found = np.broadcast_to(play(differentiate(formula, ("x",), by="x"), x), x.shape)
        assert np.allclose(found, wanted, rtol=1e-9, atol=1e-9 * max(1, np.abs(wanted).max()))


def test_a_derivative_with_two_inputs_is_partial():
    x, y = np.array([0.3, 2.0]), np.array([1.5, -0.4])
    formula = lambda x, y: v.exp(x * y) + y * y  # noqa: E731
    assert np.allclose(play(differentiate(formula, ("x", "y"), by="x"), x, y), y * np.exp(x * y))
    assert np.allclose(play(differentiate(formula, ("x", "y"), by="y"), x, y), x * np.exp(x * y) + 2 * y)


def test_a_constant_has_the_derivative_zero():
    assert play(differentiate(lambda x: 3.0, ("x",), by="x"), np.ones(3)) == 0
    assert play(differentiate(lambda x: x, ("x",), by="x"), np.ones(3)) == 1


def test_the_chain_rule_prints_as_a_person_would_write():
    text = cuda_function(differentiate(lambda x: v.exp(v.sin(x**2)), ("x",), by="x"), "derivative")
    assert text.count("const real t") <= 7
    assert [text.count(f"{word}(") for word in ("exp", "sin", "cos")] == [1, 1, 1]
    assert "real(1)" not in text
    assert "real(0)" not in text


def test_a_derivative_uses_the_value_that_is_known():
    recording = differentiate(v.tanh, ("z",), by="z", result="a")
    assert not recording.reads("z")
    assert "tanh" not in cuda_function(recording, "prime")


def test_an_activation_without_prime_is_derived():
    f = Activation("softsign without prime", lambda z: z / (1 + v.absolute(z)))
    z = away_from_kinks()
    assert np.allclose(play(prime_recording(f), z, f.value(z)), 1 / (1 + np.abs(z)) ** 2)
