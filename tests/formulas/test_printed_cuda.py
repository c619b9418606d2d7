import re

import numpy as np
import points
import printed_cpp
import pytest

from gpumlp.formulas import vocabulary
from gpumlp.formulas.activations import prime_recording
from gpumlp.formulas.derivative import differentiate
from gpumlp.formulas.output_delta import is_matched, output_delta
from gpumlp.formulas.play import play
from gpumlp.formulas.printers import cuda_choice, cuda_constant, cuda_function
from gpumlp.formulas.term import record
from gpumlp.formulas.update_rules import rule_recording
from gpumlp.formulas.vocabulary import WORDS

pytestmark = pytest.mark.skipif(printed_cpp.find_compiler() is None, reason="no C++ compiler on this machine")

ZAYC = ("z", "a", "y", "c")


def build_recordings():
    """Return everything that a kernel may be made of: key -> recording."""
    found = {}
    for word in WORDS.values():
        found["word", word.name] = record_word(word)
    for f in points.ELEMENTWISE:
        found["value", f.name] = record(f.value, "z")
        found["prime", f.name] = prime_recording(f)
        found["derived", f.name] = differentiate(f.value, ("z",), by="z", result="a")
    for cost in points.ALL_COSTS:
        found["term", cost.name] = record(cost.term, "a", "y")
        found["gradient", cost.name] = record(cost.gradient, "a", "y", "c")
        if cost.outer is not None:
            found["outer", cost.name] = record(cost.outer, "s")
        if cost.matched_term is not None:
            found["matched_term", cost.name] = record(cost.matched_term, "z", "a", "y")
    for cost, f in points.PAIRS:
        found["delta", cost.name, f.name] = output_delta(cost, f).delta
        found["pair term", cost.name, f.name] = output_delta(cost, f).term
    for rule in points.ALL_RULES:
        for extras in (frozenset(), points.ALL_EXTRAS):
            found["rule", rule.name, extras] = rule_recording(rule, points.rule_numbers(rule), extras)
    return found


def record_word(word):
    n = max(int(i) for i in re.findall(r"\{(\d)\}", word.cuda)) + 1
    if word.name == "where":
        return record(lambda c, x, y: vocabulary.where(c > 0, x, y), "c", "x", "y")
    return record(lambda *x: vocabulary.speak(word.name, *x), *"xyz"[:n])


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    return printed_cpp.Printed(build_recordings(), np.float64, tmp_path_factory.mktemp("cpp"))


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return printed_cpp.Printed(build_recordings(), np.float32, tmp_path_factory.mktemp("cpp"))


@pytest.fixture(scope="module", params=["double", "single"])
def printed(request):
    return request.getfixturevalue(request.param)


def assert_close(printed, found, wanted, factor=1):
    """Allow 1e-14 in double and as many units of rounding in float, relative to what exceeds 1.

    factor   what a result was multiplied with, and its rounding error, too
    """
    wanted = np.broadcast_to(np.asarray(wanted, printed.dtype), found.shape)
    assert np.array_equal(np.isnan(found), np.isnan(wanted))
    assert np.array_equal(np.isinf(found), np.isinf(wanted))
    known = np.isfinite(wanted)
    bound = 1e-14 if printed.dtype == np.float64 else 1e-14 / np.finfo(np.float64).eps * np.finfo(np.float32).eps
    size = np.maximum(np.abs(wanted), np.maximum(1, np.abs(factor)))[known]
    assert (np.abs(found[known] - wanted[known]) <= bound * size).all()


def cast(printed, *arrays):
    return [np.asarray(x, printed.dtype) for x in arrays]


def word_points(word, recording):
    """Return points inside the word's domain, one array an input."""
    n = len(recording.inputs)
    rng = np.random.default_rng(3)
    ranges = {
        "exp": (-80, 80),
        "expm1": (-80, 80),
        "log": (1e-6, 50),
        "log1p": (-0.99, 50),
        "sqrt": (0, 50),
        "tanh": (-12, 12),
        "power": (0.05, 4),
    }
    low, high = ranges.get(word.name, (-30, 30))
    x = rng.uniform(low, high, (n, 3000))
    if low == -30:
        x[:, :500] = np.round(x[:, :500]) + 0.5  # ties for the comparisons
    return x


@pytest.mark.parametrize("word", WORDS.values(), ids=points.by_name)
def test_a_word_lies_within_its_ulps_of_numpy(printed, word):
    recording = printed.recordings["word", word.name]
    x = cast(printed, *word_points(word, recording))
    (found,) = printed(("word", word.name), *x)
    wanted = np.asarray(word.numpy(x[0] > 0, *x[1:]) if word.name == "where" else word.numpy(*x), printed.dtype)
    ulps = np.abs(found - wanted) / np.spacing(np.maximum(np.abs(wanted), np.finfo(printed.dtype).tiny))
    assert ulps.max() <= word.ulp


@pytest.mark.parametrize("f", points.ELEMENTWISE, ids=points.by_name)
def test_a_printed_activation_is_the_activation(printed, f):
    (z,) = cast(printed, np.concatenate([points.reals(), points.NOT_FINITE]))
    with np.errstate(all="ignore"):
        assert_close(printed, printed(("value", f.name), z)[0], f.value(z))


@pytest.mark.parametrize("f", points.ELEMENTWISE, ids=points.by_name)
def test_a_printed_derivative_is_the_derivative(printed, f):
    (z,) = cast(printed, np.clip(points.reals(), -20, 20))
    a = f.value(z)
    if f.prime is not None:
        assert_close(printed, printed(("prime", f.name), z, a)[0], f.prime(z, a))
    derived = printed.recordings["derived", f.name]
    assert_close(printed, printed(("derived", f.name), z, a)[0], play(derived, z, a))


@pytest.mark.parametrize("name", ["relu", "hard_tanh", "identity", "elu", "selu", "leaky_relu", "softplus", "tanh"])
def test_nan_survives_a_printed_activation(printed, name):
    key = next(k for k in printed.recordings if k[0] == "value" and k[1].partition("(")[0] == name)
    assert np.isnan(printed(key, np.full(3, np.nan))).all()


@pytest.mark.parametrize("word", ["sign", "absolute", "sqrt", "tanh", "exp"])
def test_nan_survives_a_printed_word(printed, word):
    assert np.isnan(printed(("word", word), np.full(3, np.nan))).all()


@pytest.mark.parametrize("cost", points.ALL_COSTS, ids=points.by_name)
def test_a_printed_cost_is_the_cost(printed, cost):
    a, y = cast(printed, points.inside(cost.domain), points.inside(cost.targets, seed=5))
    assert_close(printed, printed(("term", cost.name), a, y)[0], cost.term(a, y))
    assert_close(printed, printed(("gradient", cost.name), a, y, np.abs(a))[0], cost.gradient(a, y, np.abs(a)))
    if cost.outer is not None:
        assert_close(printed, printed(("outer", cost.name), np.abs(a))[0], cost.outer(np.abs(a)))
    if cost.matched_term is not None:
        z = np.log(points.inside(cost.targets, seed=6).astype(printed.dtype))
        assert_close(printed, printed(("matched_term", cost.name), z, a, y)[0], cost.matched_term(z, a, y))


@pytest.mark.parametrize("pair", points.PAIRS, ids=points.by_name)
def test_a_printed_output_delta_is_gradient_times_derivative(printed, pair):
    cost, f = pair
    z, a, y = cast(printed, *points.outputs_and_targets(cost, f))
    c = np.abs(y) + printed.dtype.type(0.5)
    (found,) = printed(("delta", cost.name, f.name), z, a, y, c)
    if is_matched(cost, f):
        assert np.array_equal(found, a - y)
    else:
        gradient = cost.gradient(a, y, c)
        assert_close(printed, found, gradient * play(prime_recording(f), z, a), factor=gradient)
    (term,) = printed(("pair term", cost.name, f.name), z, a, y)
    matched = is_matched(cost, f) and cost.matched_term is not None
    assert_close(printed, term, cost.matched_term(z, a, y) if matched else cost.term(a, y))


@pytest.mark.parametrize("extras", [frozenset(), points.ALL_EXTRAS], ids=["plain", "penalties"])
@pytest.mark.parametrize("rule", points.ALL_RULES, ids=points.by_name)
def test_a_printed_update_rule_is_the_rule(printed, rule, extras):
    w, g, state, numbers = points.rule_points(rule)
    w, g = cast(printed, w, g)
    state = dict(zip(state, cast(printed, *state.values()), strict=True))
    numbers = dict(zip(numbers, cast(printed, *numbers.values()), strict=True))
    found = printed(("rule", rule.name, extras), w, g, *state.values(), *numbers.values())
    wanted = points.step_directly(rule, w, g, state, numbers, extras)
    assert len(found) == 1 + len(rule.state)
    for one, other in zip(found, wanted, strict=True):
        assert_close(printed, one, other)


def test_numbers_are_printed_exactly():
    for value in (0.1, -2.5, 1e300, 1e-300, 3.0, -0.044715, 123456789012345678.0, 1 / 3):
        assert float(cuda_constant(value)[len("real(") : -1]) == value
    assert cuda_constant(2.0) == "real(2)"
    assert [cuda_constant(float(v)) for v in ("inf", "-inf", "nan")] == [
        "real(INFINITY)",
        "real(-INFINITY)",
        "real(NAN)",
    ]


def test_a_printed_function_computes_a_common_subterm_once():
    text = cuda_function(record(lambda x: (x + 1) * vocabulary.exp(x + 1), "x"), "f")
    assert text.count("x + real(1)") == 1


def test_a_function_with_several_results_writes_them_to_references():
    text = cuda_function(record(lambda x, y: (x + y, x - y), "x", "y"), "both", ("sum", "difference"))
    assert text.startswith(
        "__device__ __forceinline__ void both(const real x, const real y, real& sum, real& difference)"
    )
    assert "sum = t0;" in text
    assert "difference = t1;" in text


def test_a_choice_among_several_formulas_calls_the_one_of_that_number():
    text = cuda_choice([record(lambda x, y: x + y, "x", "y"), record(lambda x, y: x - y, "x", "y")], "either")
    assert text.count("forceinline__ real either_") == 2
    assert "real either(const real x, const real y, const int kind)" in text
    assert "case 0: return either_0(x, y);" in text
    assert "default: return either_1(x, y);" in text


def test_a_choice_among_one_formula_reads_no_number():
    text = cuda_choice([record(lambda x: x + 1, "x")], "value")
    assert text.endswith("real value(const real x, int) {\n    return value_0(x);\n}\n")
