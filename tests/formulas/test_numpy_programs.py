"""A program gives, bit for bit, what the formula gives when it is evaluated directly on arrays."""

import numpy as np
import points
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gpumlp.backends import numpy_programs as programs
from gpumlp.formulas import vocabulary as v
from gpumlp.formulas.activations import prime_recording, reads_z
from gpumlp.formulas.output_delta import is_matched, output_delta
from gpumlp.formulas.play import play
from gpumlp.formulas.printers import numpy_program, select
from gpumlp.formulas.term import Term, record

SIZES = [1, 7, 1023, 1024, 5000]  # `select` takes another path from 1024 on
DTYPES = [np.float32, np.float64]


@pytest.fixture(params=DTYPES, ids=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


def perform(program, inputs, outputs):
    """Run a program with scratch arrays that hold rubbish."""
    shape, dtype = outputs[-1].shape, outputs[-1].dtype
    registers = [np.full(shape, np.nan, dtype) for _ in range(program.n_registers)]
    flags = [np.ones(shape, bool) for _ in range(program.n_flags)]
    with np.errstate(all="ignore"):
        program.run(*inputs, *outputs, *registers, *flags)


def rubbish(x):
    return np.full_like(x, -777)


def assert_same(found, wanted):
    wanted = np.broadcast_to(wanted, found.shape)
    assert wanted.dtype == found.dtype
    assert np.array_equal(found, wanted, equal_nan=True)


def typed(x, like):
    """Return x in the dtype of an array: np.where(condition, 1, 0) alone has whole numbers."""
    return np.asarray(x).astype(like.dtype)


def prime_of(f, z, a):
    return typed(play(prime_recording(f), z, a) if f.prime is None else f.prime(z, a), a)


def sample(n, dtype, seed=0):
    """Return n numbers, values that are not finite among them if there is room."""
    x = points.reals(max(n, 20), seed).astype(dtype)
    np.random.default_rng(seed).shuffle(x)
    if n >= 1023:
        x[5:8] = points.NOT_FINITE
    return x[:n].copy()


# ---------------------------------------------------------------- the programs of the backend


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("f", points.ELEMENTWISE, ids=points.by_name)
def test_an_activation_program_is_the_activation(f, n, dtype):
    z, b = sample(n, dtype), sample(n, dtype, 1)
    with np.errstate(all="ignore"):
        wanted_z, wanted_a = z + b, f.value(z + b)
    in_place = z.copy()
    perform(programs.activation_program(f, keeps_z=False), [in_place, b], [in_place])
    assert_same(in_place, wanted_a)
    kept, a = z.copy(), rubbish(z)
    perform(programs.activation_program(f, keeps_z=True), [kept, b], [kept, a])
    assert_same(kept, wanted_z)
    assert_same(a, wanted_a)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("f", points.ELEMENTWISE, ids=points.by_name)
def test_a_derivative_program_is_delta_times_the_derivative(f, n, dtype):
    z, d = sample(n, dtype), sample(n, dtype, 2)
    with np.errstate(all="ignore"):
        a = f.value(z)
        wanted = d * prime_of(f, z, a)
    delta = d.copy()
    perform(programs.hidden_delta_program(f, False), [delta, z if reads_z(f) else a, a], [delta])
    assert_same(delta, wanted)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("pair", points.PAIRS, ids=points.by_name)
def test_an_output_program_gives_activation_and_cost_and_delta(pair, n, dtype):
    cost, f = pair
    z, a, y = (x[:n].astype(dtype) for x in points.outputs_and_targets(cost, f, max(n, 20)))
    formulas = output_delta(cost, f)
    if not f.row_wise:
        z_out, a_out, terms, b = z.copy(), rubbish(z), rubbish(z), np.zeros_like(z)
        a = f.value(z + b)
        perform(programs.output_program(f, formulas.term), [z_out, b, y], [z_out, a_out, terms])
        assert_same(z_out, z + b)
        assert_same(a_out, a)
        assert_same(terms, play(formulas.term, z, a, y))
    delta, weight = rubbish(z), np.abs(y) + dtype.type(0.25)
    perform(programs.delta_program(formulas.delta), [z, a, y, weight, weight], [delta])
    if is_matched(cost, f):
        assert_same(delta, (a - y) * weight)
    else:
        assert_same(delta, typed(cost.gradient(a, y, weight), a) * prime_of(f, z, a) * weight)


@pytest.mark.parametrize("n", [7, 1024])
@pytest.mark.parametrize("cost", points.ALL_COSTS, ids=points.by_name)
def test_a_cost_program_is_the_cost(cost, n, dtype):
    a, y = (points.inside(i, n, s).astype(dtype) for i, s in ((cost.domain, 0), (cost.targets, 1)))
    out = rubbish(a)
    perform(numpy_program(record(cost.term, "a", "y"), ("c",), {}), [a, y], [out])
    assert_same(out, cost.term(a, y))
    if cost.outer is not None:
        sums = np.abs(out)
        with np.errstate(over="ignore"):
            wanted = cost.outer(sums)
        perform(programs.outer_program(record(cost.outer, "s")), [sums], [sums])
        assert_same(sums, wanted)


@pytest.mark.parametrize("extras", [frozenset(), frozenset({"l2"}), points.ALL_EXTRAS], ids=["plain", "l2", "all"])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("rule", points.ALL_RULES, ids=points.by_name)
def test_a_rule_program_moves_weights_and_state_in_place(rule, n, extras, dtype):
    w, g, state, numbers = points.rule_points(rule, max(n, 20))
    w, g, state = w[:n].astype(dtype), g[:n].astype(dtype), {k: s[:n].astype(dtype) for k, s in state.items()}
    numbers = {name: np.array(value, dtype) for name, value in numbers.items()}  # 0-d, as in a single model
    wanted = points.step_directly(rule, w, g, state, numbers, extras)
    w_out, state_out, g_before = w.copy(), [s.copy() for s in state.values()], g.copy()
    program = programs.rule_program(rule, tuple(numbers), extras)
    perform(program, [w_out, g, *state_out, *numbers.values()], [w_out, *state_out])
    for found, value in zip([w_out, *state_out], wanted, strict=True):
        assert_same(found, value)
    assert np.array_equal(g, g_before)


@pytest.mark.parametrize("rule", points.ALL_RULES, ids=points.by_name)
def test_a_rule_takes_the_numbers_of_several_models_as_columns(rule, dtype):
    w, g, state, numbers = points.rule_points(rule, 3 * 5)
    w, g, state = (x.reshape(3, 1, 5).astype(dtype) for x in (w, g, *state.values())), None, None
    w, g, *state = w
    factors = np.array([1.0, 0.5, 0.25]).reshape(3, 1, 1)
    columns = {name: (value * factors).astype(dtype) for name, value in numbers.items()}
    named = dict(zip(rule.state, state, strict=True))
    wanted = points.step_directly(rule, w, g, named, columns, points.ALL_EXTRAS)
    w_out, state_out = w.copy(), [s.copy() for s in state]
    program = programs.rule_program(rule, tuple(columns), points.ALL_EXTRAS)
    perform(program, [w_out, g, *state_out, *columns.values()], [w_out, *state_out])
    for found, value in zip([w_out, *state_out], wanted, strict=True):
        assert_same(found, value)


def test_the_bias_is_added_to_every_row(dtype):
    z, b = np.arange(30, dtype=dtype).reshape(2, 5, 3), np.array([[[1, 2, 3]], [[4, 5, 6]]], dtype)
    wanted = z + b
    perform(programs.bias_program(), [z, b], [z])
    assert_same(z, wanted)


@pytest.mark.parametrize("name", ["relu", "hard_tanh", "elu", "selu", "leaky_relu", "softplus", "silu"])
def test_nan_survives_a_program(name, dtype):
    f = next(a for a in points.ELEMENTWISE if a.name.partition("(")[0] == name)
    z = np.full(1500, np.nan, dtype)
    perform(programs.activation_program(f, keeps_z=False), [z, np.zeros_like(z)], [z])
    assert np.isnan(z).all()


# ---------------------------------------------------------------- select


@pytest.mark.parametrize("n", SIZES)
def test_select_is_where_for_every_bit_pattern(n, dtype):
    rng = np.random.default_rng(4)
    condition = rng.random(n) < 0.5
    x, y = sample(n, dtype, 1), sample(n, dtype, 2)
    x[: n // 3], y[: n // 5] = -0.0, np.nan
    for left, right in ((x, y), (2.5, y), (x, -0.0), (np.array(np.inf, dtype), y), (x[:1], y)):
        out = rubbish(y)
        select(condition, left, right, out)
        assert out.tobytes() == np.where(condition, left, right).astype(dtype).tobytes()
    both = x.copy()
    select(condition, both, both, both)
    assert both.tobytes() == x.tobytes()
    for aliased in (x.copy(), y.copy()):
        is_x = np.array_equal(aliased, x, equal_nan=True)
        select(condition, aliased if is_x else x, y if is_x else aliased, aliased)
        assert aliased.tobytes() == np.where(condition, x, y).tobytes()


def test_select_takes_arrays_that_are_not_contiguous(dtype):
    whole = np.zeros((40, 64), dtype)
    out = whole[:, 3:50]
    x, y = np.ones_like(out), np.broadcast_to(np.arange(47, dtype=dtype), out.shape)
    select(y > 20, x, y, out)
    assert np.array_equal(out, np.where(y > 20, x, y))
    assert not whole[:, :3].any()
    assert not whole[:, 50:].any()


# ---------------------------------------------------------------- any formula

NUMBERS = st.sampled_from([0.5, 2.0, -1.25, 3.0, 0.1])
ONE = ["negative", "absolute", "sign", "tanh", "sin", "cos", "small_exp", "root", "square"]
TWO = ["add", "subtract", "multiply", "safe_divide"]
BOUND = ["at_least", "at_most"]
COMPARE = ["less", "less_equal", "greater", "greater_equal", "equal", "not_equal"]
PLACE = st.integers(0, 50)
STEP = st.one_of(
    st.tuples(st.sampled_from(ONE), PLACE),
    st.tuples(st.sampled_from(TWO), PLACE, PLACE),
    st.tuples(st.sampled_from(["add", "subtract", "multiply"]), PLACE, NUMBERS),
    st.tuples(st.sampled_from(BOUND), PLACE, st.one_of(PLACE, NUMBERS)),
    st.tuples(st.just("compare"), st.sampled_from(COMPARE), PLACE, st.one_of(PLACE, NUMBERS)),
    st.tuples(st.just("where"), PLACE, st.one_of(PLACE, NUMBERS), st.one_of(PLACE, NUMBERS)),
    st.tuples(st.just("where one zero"), PLACE),
    st.tuples(st.just("where zero one"), PLACE),
    st.tuples(st.just("where swapped"), PLACE),
)
UNARY = {
    "negative": lambda x: -x,
    "absolute": v.absolute,
    "sign": v.sign,
    "tanh": v.tanh,
    "sin": v.sin,
    "cos": v.cos,
    "small_exp": lambda x: v.exp(-v.absolute(x)),
    "root": lambda x: v.sqrt(v.absolute(x)),
    "square": lambda x: x**2,
}
BINARY = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "safe_divide": lambda x, y: x / (1 + v.absolute(y)),
    "at_least": v.at_least,
    "at_most": v.at_most,
}


def follow(steps, outputs, values):
    """Perform the steps on arrays or on Terms and return the chosen values; the last ones are chosen first."""
    values, conditions = list(values), []

    def number(place):
        return values[-1 - place % len(values)] if isinstance(place, int) else place

    for word, *places in steps:
        if word in UNARY:
            values.append(UNARY[word](number(places[0])))
        elif word in BINARY:
            values.append(BINARY[word](number(places[0]), number(places[1])))
        elif word == "compare":
            x, y = number(places[1]), number(places[2])
            conditions.append((v.speak(places[0], x, y), x, y))
        elif conditions:
            condition, x, y = conditions[-1 - places[0] % len(conditions)]
            named = {"where one zero": (1, 0), "where zero one": (0, 1), "where swapped": (y, x)}
            chosen = named[word] if word in named else [number(place) for place in places[1:]]
            choice = v.where(condition, *chosen)  # of two Python numbers NumPy's has a dtype of its own
            values.append(choice if isinstance(choice, Term) else typed(choice, values[0]))
    return tuple(number(place) for place in outputs)


@st.composite
def programs_of_any_kind(draw):
    n_arrays, n_scalars = draw(st.integers(1, 4)), draw(st.integers(0, 2))
    steps = draw(st.lists(STEP, min_size=0, max_size=14))
    outputs = draw(st.lists(PLACE, min_size=1, max_size=4))
    targets = draw(st.permutations([*range(n_arrays), *[None] * 4]))[: len(outputs)]
    size = draw(st.sampled_from([3, 1500]))
    dtype = draw(st.sampled_from(DTYPES))
    seed = draw(st.integers(0, 1000))
    return n_arrays, n_scalars, steps, outputs, targets, size, dtype, seed


SAME = [
    ("tanh", 1),
    ("compare", "less", 1, 0.0),
    ("where", 0, 0, 0),
    ("multiply", 0, 2),
]  # both sides of a choice are one


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(programs_of_any_kind())
@example((2, 0, [("add", 0, 1)], [0, 2], [0, 1], 3, np.float64, 0))  # the second result is an input
@example((2, 0, [], [0, 1], [0, 1], 3, np.float64, 0))  # two arrays change places
@example(
    (
        1,
        0,
        [("compare", "less", 0, 0.5), ("where", 0, 0.5, 0), ("where", 0, 0, 0.1)],
        [0, 1],
        [0, None],
        1500,
        np.float32,
        0,
    )
)
@example(
    (1, 0, [("compare", "less", 0, 0.5), ("tanh", 0), ("where swapped", 0), ("add", 0, 1)], [0], [0], 3, np.float64, 0)
)
@example((2, 0, SAME, [0], [0], 1500, np.float32, 0))
def test_any_formula_with_any_aliasing_is_computed_as_written(case):
    n_arrays, n_scalars, steps, outputs, targets, size, dtype, seed = case
    rng = np.random.default_rng(seed)
    names = [f"x{i}" for i in range(n_arrays)], [f"h{i}" for i in range(n_scalars)]
    arrays = [
        np.round(rng.uniform(-1.5, 1.5, size), 1).astype(dtype) for _ in names[0]
    ]  # rounded, so that some are equal
    scalars = [np.array(rng.uniform(-1.5, 1.5), dtype) for _ in names[1]]
    with np.errstate(all="ignore"):
        wanted = [np.broadcast_to(w, size).astype(dtype) for w in follow(steps, outputs, [*scalars, *arrays])]
    assume(all(np.isfinite(w).all() for w in wanted))
    recording = record(lambda *x: follow(steps, outputs, x), *names[1], *names[0])
    result_names = tuple(f"out{i}" for i in range(len(outputs)))
    over = {f"out{i}": names[0][t] for i, t in enumerate(targets) if t is not None}
    program = numpy_program(recording, result_names, over, scalars=tuple(names[1]))
    given_arrays = [x.copy() for x in arrays]
    results = [np.full(size, -777, dtype) if t is None else given_arrays[t] for t in targets]
    perform(program, [*scalars, *given_arrays], results)
    for found, value in zip(results, wanted, strict=True):
        assert np.array_equal(found, value), program.source
    for i, x in enumerate(arrays):
        if i not in targets:
            assert np.array_equal(given_arrays[i], x)


def test_a_result_that_is_an_input_is_saved_before_it_is_overwritten():
    """The new state of a rule may be the old weight."""
    program = numpy_program(record(lambda w, last: (2 * w - last, w), "w", "last"), ("a", "b"), {"a": "w", "b": "last"})
    w, last = np.array([1.0, 2.0]), np.array([10.0, 20.0])
    perform(program, [w, last], [w, last])
    assert w.tolist() == [-8, -16]
    assert last.tolist() == [1, 2]


def test_a_condition_may_be_a_result():
    program = numpy_program(record(lambda x: (x < 0, v.where(x < 0, 0, x)), "x"), ("flag", "out"), {})
    x, flag, out = np.array([-1.0, 0.0, 2.0]), np.full(3, 7.0), np.full(3, 7.0)
    perform(program, [x], [flag, out])
    assert flag.tolist() == [1, 0, 0]
    assert out.tolist() == [0, 0, 2]


def test_a_choice_by_a_number_chooses_by_whether_it_is_zero():
    for n in (3, 1500):
        x = np.resize([-2.0, 0.0, 5.0], n)
        for formula in (lambda x: v.where(x, 1, 0), lambda x: v.where(x, 3 * x, -1)):
            out = rubbish(x)
            perform(numpy_program(record(formula, "x"), ("out",), {}), [x], [out])
            assert_same(out, typed(formula(x), x))


def test_a_bound_that_is_nan_changes_nothing():
    x, y, out = np.array([1.0, 2.0]), np.array([np.nan, 5.0]), np.empty(2)
    perform(numpy_program(record(v.at_least, "x", "y"), ("out",), {}), [x, y], [out])
    assert_same(out, v.at_least(x, y))


def test_inputs_may_be_called_as_a_word_is():
    """A rule's number may be called power, its state r0."""
    recording = record(
        lambda power, r0: v.sign(power) * v.power(v.absolute(power), 0.5) + v.tanh(r0 * r0), "power", "r0"
    )
    x, y, out = np.array([4.0, -9.0]), np.array([0.5, 1.0]), np.empty(2)
    perform(numpy_program(recording, ("out",), {}), [x, y], [out])
    assert np.allclose(out, [2 + np.tanh(0.25), -3 + np.tanh(1)])


def test_what_depends_on_numbers_alone_is_computed_once():
    program = numpy_program(
        record(lambda x, h: x * ((1 - h) * v.exp(h)), "x", "h"), ("out",), {"out": "x"}, scalars=("h",)
    )
    assert program.n_registers == 0
    assert program.source.count("out)") == 2  # the head, and one operation on arrays
    x = np.ones(4)
    perform(program, [x, np.array(0.5)], [x])
    assert np.allclose(x, 0.5 * np.exp(0.5))
