"""What Numba compiles of a formula is the formula: each definition, in both dtypes."""

import numpy as np
import points
import pytest

from gpumlp.formulas.activations import prime_recording
from gpumlp.formulas.hidden_delta import dropout_recording, hidden_delta_recording
from gpumlp.formulas.output_delta import output_delta
from gpumlp.formulas.play import play
from gpumlp.formulas.printers import numba_function
from gpumlp.formulas.term import record
from gpumlp.formulas.update_rules import rule_recording
from gpumlp.formulas.vocabulary import WORDS, power, speak, tanh, where


class Real:
    """A number type in which constants would show if they were not cast: it computes with itself alone."""

    def __init__(self, value):
        self.value = np.float64(value.value if isinstance(value, Real) else value)

    def __neg__(self):
        return Real(-self.value)

    def __abs__(self):
        return Real(abs(self.value))


def _operator(name):
    def operate(self, other):
        assert type(other) is Real, "a constant without its type"
        with np.errstate(all="ignore"):
            result = getattr(self.value, name)(other.value)
        return result if isinstance(result, bool | np.bool_) else Real(result)

    return operate


for _name in "add sub mul truediv pow lt le gt ge eq ne".split():  # noqa: SIM905
    setattr(Real, f"__{_name}__", _operator(f"__{_name}__"))


def functions_of_words():
    def function(word):
        return lambda *x: Real(WORDS[word].numpy(*(v.value for v in x)))

    return {word.name: function(word.name) for word in WORDS.values() if not word.numba}


def run(recording, *arguments):
    """Run the printed text as plain Python, number by number."""
    namespace = {"real": Real, "inf": float("inf"), "nan": float("nan"), **functions_of_words()}
    exec(numba_function(recording, "printed"), namespace)
    with np.errstate(all="ignore"):
        rows = [namespace["printed"](*map(Real, row)) for row in zip(*arguments, strict=True)]
    several = [row if isinstance(row, tuple) else (row,) for row in rows]
    assert all(type(x) is Real for row in several for x in row)
    return np.array([[x.value for x in row] for row in several]).T


def check(recording, *arguments):
    arguments = [np.asarray(x, float)[:60] for x in arguments]
    with np.errstate(all="ignore"):
        wanted = play(recording, *arguments)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for found, value in zip(run(recording, *arguments), wanted, strict=True):
        assert np.allclose(found, np.broadcast_to(value, found.shape), rtol=1e-14, atol=1e-14, equal_nan=True)


@pytest.mark.parametrize("f", points.ELEMENTWISE, ids=points.by_name)
def test_a_printed_activation_and_its_derivative_are_the_definition(f):
    z = np.concatenate([points.NOT_FINITE, points.reals()])
    with np.errstate(all="ignore"):
        a = f.value(z)
    check(record(f.value, "z"), z)
    check(prime_recording(f), z, a)
    check(hidden_delta_recording(f, False), np.roll(z, 1), z, a)
    check(hidden_delta_recording(f, True), np.roll(z, 1), z, a, np.arange(len(z)) % 2, *np.full((2, len(z)), 0.5))


@pytest.mark.parametrize("pair", points.PAIRS, ids=points.by_name)
def test_a_printed_cost_and_its_delta_are_the_definition(pair):
    cost, f = pair
    z, a, y = points.outputs_and_targets(cost, f, 60)
    formulas = output_delta(cost, f)
    check(formulas.term, z, a, y)
    check(formulas.delta, z, a, y, np.abs(y) + 0.25)
    if formulas.outer is not None:
        check(formulas.outer, np.abs(z))


@pytest.mark.parametrize("extras", [frozenset(), points.ALL_EXTRAS], ids=["plain", "all"])
@pytest.mark.parametrize("rule", points.ALL_RULES, ids=points.by_name)
def test_a_printed_rule_is_the_definition(rule, extras):
    w, g, state, numbers = points.rule_points(rule, 60)
    values = [np.full(60, value) for value in numbers.values()]
    check(rule_recording(rule, tuple(numbers), extras), w, g, *state.values(), *values)


def test_dropout_is_printed():
    check(dropout_recording(), points.reals(), np.arange(len(points.reals())) % 2, np.full(len(points.reals()), 1.25))


@pytest.mark.parametrize("word", WORDS.values(), ids=points.by_name)
def test_every_word_has_a_spelling(word):
    n = word.numpy.nin if hasattr(word.numpy, "nin") else 3
    x = np.random.default_rng(0).uniform(0.1, 0.9, (n, 20))
    x[:, :3], x[-1, 5] = 0.5, -0.25
    if word.name == "where":
        check(record(lambda c, a, b: where(c > 0.4, a, b), "c", "x", "y"), *x)
    elif word.name in ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal"):
        check(record(lambda a, b: where(speak(word.name, a, b), a, b), "x", "y"), *x)
    else:
        check(record(lambda *a: speak(word.name, *a), *"xyz"[:n]), *np.abs(x))


def test_an_input_may_be_called_as_a_word_is():
    x = np.array([4.0, 9.0])
    check(record(lambda abs, real, t0: power(abs, 0.5) + tanh(real) * t0, "abs", "real", "t0"), x, x, x)


def test_constants_that_are_not_finite_are_printed():
    check(record(lambda x: where(x < float("inf"), x, float("nan")), "x"), np.array([1.0, np.inf, -np.inf]))
