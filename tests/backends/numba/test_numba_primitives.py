"""Each method of the Numba backend beside NumPy's on the same arrays, of odd sizes, with rows that begin anywhere."""

from dataclasses import replace

import numpy as np
import pytest
from normalised_layers import DEGENERATE, SIZES, WAYS, normalised

from gpumlp.backends import numba_backend, numba_normalisation, numba_program
from gpumlp.backends.numba_batches import NumbaRowWindow
from gpumlp.backends.numpy_batches import RowWindow
from gpumlp.backends.protocol import Batch, BatchSource, Dropout, StepNumbers, Tally
from gpumlp.backends.select import get_backend
from gpumlp.formulas.activations import ACTIVATIONS, reads_z
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.output_delta import output_delta
from gpumlp.formulas.update_rules import RULES, finished_names, given_names
from gpumlp.network.places import build_places
from gpumlp.randomness.seeds import model_keys, shared_key
from gpumlp.randomness.streams import dropout_threshold, dropout_words

GAP = 7.0  # stands around the tensors of a gradient, and stays there


def draw(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def cast(x, b):
    return np.array(x, b.dtype)


def part(buffer, start, *shape):
    return buffer[:, start : start + int(np.prod(shape))].reshape(len(buffer), *shape)


def divide_everything(monkeypatch):
    """Let the smallest work be dealt out to the threads."""
    for name in ("WORTH_A_THREAD", "WORTH_A_PART"):
        monkeypatch.setattr(numba_program, name, 1e-3)
    monkeypatch.setattr(numba_backend, "PIECE_WORK", 1)
    for module in (numba_backend, numba_normalisation):
        monkeypatch.setattr(module, "PIECE_UNITS", 1)


def compare(case, dtype, exact=()):
    """Fail unless `case` gives with Numba what it gives with NumPy; return what it gives."""
    results = {}
    for name, of in (("numba", dtype), ("numpy", dtype), ("truth", "float64")):
        b = get_backend("numpy" if name == "truth" else name, dtype=of)
        with b.session():
            results[name] = case(b)
    for name, found in results["numba"].items():
        own, truth = (np.asarray(results[of][name], float) for of in ("numpy", "truth"))
        finite = np.isfinite(own)
        assert np.array_equal(found[~finite], own[~finite], equal_nan=True), name
        largest = np.abs(own[finite]).max(initial=0)
        if dtype == "float64":
            allowed = 1e-12 * np.abs(own[finite]) + 1e-13 * largest
        else:
            allowed = 4 * np.abs(own[finite] - truth[finite]).max(initial=0) + 1e-6 * largest
        assert (np.abs(found[finite] - own[finite]) <= (0 if name in exact else allowed)).all(), name
    return results["numba"]


# ---------------------------------------------------------------- a hidden layer


def layer(activation, n_models=3, batch=5, n_in=4, n_out=6, rate=0.0, shared=False, values=None):
    f = ACTIVATIONS.get(activation)

    def case(b):
        theta = cast(draw(1, n_models, 5 + n_out * n_in + n_out + 2 * n_out + 9), b)
        W, bias = part(theta, 5, n_out, n_in), part(theta, 5 + n_out * n_in, n_out)
        W_next = part(theta, 5 + n_out * (n_in + 1), 2, n_out)
        grad = np.full((n_models, n_out + 9), GAP, b.dtype)
        a_in = cast(draw(2, 1 if shared else n_models, batch, n_in) if values is None else values, b)
        delta_next = cast(draw(3, n_models, batch, 2), b)
        z, delta = (np.full((n_models, batch, n_out), np.nan, b.dtype) for _ in range(2))
        a = np.full_like(z, np.nan) if reads_z(f) else z
        dropout = None
        if rate:
            clock = np.array([7, 0, 0])
            keys = model_keys([4] * n_models, range(n_models))
            dropout = Dropout(2, rate, keys, clock, np.empty(z.shape, bool))
        b.forward_layer(f, a_in, W, bias, z, a, dropout)
        b.hidden_delta(f, delta_next, W_next, z, a, delta, part(grad, 4, n_out), dropout)
        return {"z": z, "a": a, "delta": delta, "grad": grad, "theta": theta}

    return case


ELEMENTWISE = [f.name.partition("(")[0] for f in ACTIVATIONS.definitions() if not f.row_wise]


@pytest.mark.parametrize("activation", ELEMENTWISE)
def test_a_layer_goes_forward_and_back(activation, dtype):
    compare(layer(activation), dtype)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_a_layer_of_any_size(sizes, rate, dtype):
    n_models, batch, n_in, n_out = sizes
    for activation in ("tanh", "gelu"):
        compare(layer(activation, n_models, batch, n_in, n_out, rate, shared=True), dtype)


@pytest.mark.parametrize("activation", ELEMENTWISE)
def test_values_that_are_not_finite_survive_an_activation(activation, dtype):
    f = ACTIVATIONS.get(activation)
    z = np.tile([np.nan, np.inf, -np.inf, 1000.0, -1000.0], 9)
    b = get_backend("numba", dtype=dtype)
    out, W = np.empty((1, 45, 1), dtype), np.ones((1, 1, 1), dtype)
    b.forward_layer(f, cast(z[None, :, None], b), W, np.zeros((1, 1), dtype), np.empty_like(out), out)
    with np.errstate(all="ignore"):
        wanted = f.value(z.astype(dtype))
    assert np.allclose(out[0, :, 0], wanted, rtol=1e-6, equal_nan=True)


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("n", [1, 6, 13, 40])
def test_masks_are_those_of_the_streams_bit_for_bit(n, threads, monkeypatch):
    monkeypatch.setenv("GPUMLP_NUM_THREADS", threads)
    divide_everything(monkeypatch)
    b = get_backend("numba")
    keys, clock = model_keys([3, 5], [0, 1]), np.array([2**33 + 5, 0, 0])
    mask, a = np.empty((2, 9, n), bool), np.empty((2, 9, n), np.float32)
    args = np.ones((2, 9, 1), np.float32), np.ones((2, n, 1), np.float32), np.zeros((2, n), np.float32)
    b.forward_layer(ACTIVATIONS.get("identity"), *args, a, a, Dropout(1, 0.3, keys, clock, mask))
    for m in range(2):
        words = dropout_words(keys[m], np.arange(9), n, int(clock[0]), 1)
        assert np.array_equal(mask[m], words >= dropout_threshold(0.3))
    assert np.array_equal(a, mask * np.float32(1 / 0.7))


# ---------------------------------------------------------------- the output layer


def output(cost, activation, n_models=3, batch=5, n_out=2, threshold=None, train=True, z_values=None, hits=True):
    c, f = COSTS.get(cost), ACTIVATIONS.get(activation)
    formulas = output_delta(c, f)

    def case(b):
        rng = np.random.default_rng(5)
        y = rng.uniform(0.1, 0.9, (1, batch, n_out)).astype(np.float32)
        weight = rng.uniform(0.1, 1, (n_models, batch)).astype(np.float32)
        weight[:, -1:] = 0
        of_batch = Batch(cast(y, b), cast(y, b), cast(weight, b), np.arange(2.0, 2 + n_models))
        tally = Tally(np.zeros((4, n_models)), hits, threshold)
        theta, grad = cast(0.25 * draw(7, n_models, n_out + 9), b), np.full((n_models, n_out + 9), GAP, b.dtype)
        z = cast(draw(6, n_models, batch, n_out) if z_values is None else z_values, b)
        a, delta, clock = np.full_like(z, np.nan), np.full_like(z, np.nan), np.array([41, 0, 20])
        bias = part(theta, 5, n_out)
        if train:
            b.output_delta(formulas, f, z, bias, a, of_batch, clock, delta, part(grad, 4, n_out), tally)
        else:
            b.evaluate(formulas, f, z, bias, a, of_batch, clock, tally)
        return {"delta": delta, "grad": grad, "tally": tally.values, "clock": clock, "theta": theta}

    return case


PAIRS = [
    ("categorical_cross_entropy", "softmax"),
    ("cross_entropy", "sigmoid"),
    ("quadratic", "tanh"),
    ("exponential", "identity"),
    ("hellinger", "softplus"),
]


@pytest.mark.parametrize("train", [True, False], ids=["train", "evaluate"])
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_an_output_layer(pair, train, dtype):
    for sizes in ((3, 5, 2), (1, 600, 3), (2, 70, 12), (2, 70, 13), (2, 70, 130), (1, 1, 1)):
        if sizes[2] > 1 or pair[1] != "softmax":
            compare(output(*pair, *sizes, train=train), dtype, exact=("clock", "theta"))


@pytest.mark.parametrize("n", [4, 13, 64, 65, 150])
def test_the_largest_output_is_found_wherever_it_stands(n, dtype):
    z = draw(8, 1, n + 3, n)
    z[0, np.arange(n), np.arange(n)] = 1000  # without which exp overflows
    z[0, n, n // 2], z[0, n + 1, n - 1], z[0, n + 2] = np.nan, np.inf, -np.inf
    compare(output("categorical_cross_entropy", "softmax", 1, n + 3, n, z_values=z), dtype)


@pytest.mark.parametrize("n", [4, 15, 129, 150], ids=["few units", "some", "two glances", "many units"])
def test_hits_are_counted_as_numpy_counts_them(n):
    z = np.round(draw(8, 2, 90, n))  # many equal outputs
    targets = np.random.default_rng(5).uniform(0.1, 0.9, (1, 90, n))  # as `output` has them
    z[:, 1::2] = 50 * targets[:, 1::2]  # hits, mostly
    for row, places in zip(range(1, 90, 2), [(0,), (2,), (n // 2,), (n - 2, 1), (n - 1,)], strict=False):
        z[0, row, list(places)] = np.nan
    assert compare(output("quadratic", "identity", 2, 90, n, z_values=z), "float64")["tally"][2].any()
    assert not compare(output("quadratic", "identity", 2, 90, n, hits=False), "float64")["tally"][2].any()


def test_one_output_is_a_hit_where_it_reaches_the_threshold_as_its_target_does():
    z = np.round(draw(8, 2, 90, 1))
    z[0, 3, 0] = np.nan
    assert compare(output("quadratic", "identity", 2, 90, 1, z_values=z, threshold=0.5), "float64")["tally"][2].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_first_step_whose_cost_is_not_finite_is_noted(bad):
    z = draw(9, 3, 5, 2)
    z[1, 2, 0] = bad
    found = compare(output("quadratic", "identity", z_values=z), "float32")
    assert found["tally"][3].tolist() == [0, 42, 0]
    assert compare(output("quadratic", "identity", z_values=z, train=False), "float32")["tally"][3].tolist() == [0] * 3


# ---------------------------------------------------------------- batches


@pytest.mark.parametrize("x_dtype", ["bool", "uint8", "int16", "float16", "float32", "float64"])
@pytest.mark.parametrize("order", ["own", "shared", "explicit", "none"])
def test_rows_come_in_the_same_order_bit_for_bit(order, x_dtype, dtype):
    n_rows, n_models, batch = 23, 3, 5

    def case(b):
        X = (100 * np.abs(draw(1, n_rows, 4))).astype(x_dtype)
        X.flags.writeable = False
        keys = {"own": model_keys([4] * 3, range(3)), "shared": shared_key(4)[None]}.get(order)
        rows = np.random.default_rng(4).integers(0, n_rows, (1, n_rows)) if order == "explicit" else None
        Y, codes = (
            (cast(draw(2, n_rows, 2), b), None) if order == "own" else (np.arange(n_rows) % 3, cast(np.eye(3), b))
        )
        source = BatchSource(X, Y, codes, np.ones((1, n_rows)) * 2, batch, True, keys, rows)
        n_orders = n_models if order == "own" else 1
        into = Batch(
            np.empty((n_orders, batch, 4), b.dtype),
            np.empty((n_orders, batch, 2 if order == "own" else 3), b.dtype),
            np.empty((n_orders, batch), b.dtype),
            np.empty(n_orders),
        )
        tally, found = Tally(np.zeros((4, n_models))), {}
        for step in range(source.n_steps):
            b.gather_batch(source, np.array([step, 2, step * batch]), into, tally, None)
            found |= {f"{name} {step}": getattr(into, name).copy() for name in ("a0", "y", "row_weight", "scale")}
        return {**found, "tally": tally.values}

    found = compare(case, dtype)
    exact = get_backend("numpy", dtype=dtype)
    with exact.session():
        assert all(np.array_equal(found[k], v) for k, v in case(exact).items())


@pytest.mark.parametrize("own_codes", [True, False], ids=["codes of each", "codes of all"])
@pytest.mark.parametrize("weights", [None, 1, 4])
@pytest.mark.parametrize("shuffled", [True, False])
@pytest.mark.parametrize("sizes", [(13, 14, 11), (15, 15, 15), (20, 3, 1)], ids=str)
def test_rows_of_folds_and_codes_of_models_come_bit_for_bit(sizes, shuffled, weights, own_codes, dtype):
    """Folds without a number of batches in common, too: so is evaluated."""
    n_rows, n_models, batch = 23, 4, 5
    rng = np.random.default_rng(2)
    folds = [rng.permutation(n_rows)[:n] for n in sizes]
    places = build_places([folds[f] for f in (1, 0, 2, 1)], (1, 0, 2, 1))

    def case(b):
        codes = cast(draw(3, *(n_models,) * own_codes, 3, 2), b)
        sample_weight = None if weights is None else np.random.default_rng(1).uniform(0, 2, (weights, n_rows))
        keys = model_keys([4] * n_models, range(n_models)) if shuffled else None
        X, labels = cast(draw(1, n_rows, 4), b), np.arange(n_rows) % 3
        source = BatchSource(X, labels, codes, sample_weight, batch, sizes != (20, 3, 1), keys, **places.on(b))
        shapes = ((n_models, batch, 4), (n_models, batch, 2), (n_models, batch))
        into = Batch(*(np.empty(shape, b.dtype) for shape in shapes), np.empty(n_models))
        tally, found = Tally(np.zeros((4, n_models))), {}
        for step in range(source.n_steps):
            b.gather_batch(source, np.array([step, 2, step * batch]), into, tally, None)
            found |= {f"{name} {step}": getattr(into, name).copy() for name in ("a0", "y", "row_weight", "scale")}
        return {**found, "tally": tally.values}

    found, exact = compare(case, dtype), get_backend("numpy", dtype=dtype)
    with exact.session():
        assert all(np.array_equal(found[k], v) for k, v in case(exact).items())


def test_codes_of_models_come_where_all_see_the_same_rows(dtype):
    def case(b):
        codes, labels = cast(draw(3, 3, 4, 2), b), np.arange(7) % 4
        source = BatchSource(cast(draw(1, 7, 4), b), labels, codes, None, 5, True, shared_key(4)[None])
        shapes = ((1, 5, 4), (3, 5, 2), (1, 5))
        into = Batch(*(np.empty(shape, b.dtype) for shape in shapes), np.empty(1))
        b.gather_batch(source, np.zeros(3, np.int64), into, Tally(np.zeros((4, 3))), None)
        rows = np.array([np.flatnonzero((row == source.X).all(axis=1))[0] for row in into.a0[0]])
        assert np.array_equal(into.y, codes[:, labels[rows]])
        return {"y": into.y}

    compare(case, dtype)


def test_orders_of_many_sizes_are_those_of_numpy():
    for n_rows in (1, 2, 3, 17, 255, 256, 257, 4097, 70_000):
        source = BatchSource(
            np.zeros((n_rows, 1)), None, None, None, min(n_rows, 64), True, model_keys([1] * 2, [0, 1])
        )
        windows = [kind(source, 2) for kind in (RowWindow, NumbaRowWindow)]
        for position in range(0, n_rows, max(1, n_rows // 3)):
            (wanted, at), (found, there) = (w.rows_at(5, position) for w in windows)
            assert at == there
            assert np.array_equal(wanted, found)


# ---------------------------------------------------------------- update


def update(rule, extras=(), n_models=3, bounds=(0, 64, 96), skipped=(1,), gradient=None):
    rule = RULES.get(rule)

    def case(b):
        n, names = bounds[-1], finished_names(rule)
        hyper = {name: np.full((len(bounds) - 1, n_models), 0.1) for name in given_names(rule)}
        shape = (len(names), len(bounds) - 1, n_models)
        table = cast(np.random.default_rng(12).uniform(0.1, 0.9, shape).astype(np.float32), b)
        skip = np.zeros(n_models, bool)
        skip[list(skipped)] = True
        numbers = StepNumbers(rule, frozenset(extras), hyper, names, table, np.ones((1, 1)), skip)
        theta, grad = (cast(draw(s, n_models, n).astype(np.float32), b) for s in (21, 22))
        if gradient is not None:
            grad[...] = gradient
        state = cast(np.abs(draw(23, len(rule.state), n_models, n)).astype(np.float32), b)
        clock = np.array([8, 2, 15])
        if "clip" in extras:
            b.gradient_norm(grad[:, : bounds[-1]], np.linspace(0.5, 50, n_models), numbers)
        b.update(numbers, theta, grad, state, bounds, clock, 5)
        return {"theta": theta, "state": state, "grad": grad, "clock": clock, "table": table}

    return case


RULE_NAMES = [rule.name.partition("(")[0] for rule in RULES.definitions()]


@pytest.mark.parametrize("extras", [(), ("l2", "l1", "clip")], ids=["plain", "all"])
@pytest.mark.parametrize("rule", RULE_NAMES)
def test_an_update(rule, extras, dtype):
    compare(update(rule, extras), dtype, exact=("clock", "grad"))


def test_models_that_are_skipped_stay_and_the_others_move(dtype):
    found = compare(update("adam", n_models=4, skipped=(0, 2)), dtype)
    before = draw(21, 4, 96).astype(np.float32)
    assert [np.array_equal(x, y) for x, y in zip(found["theta"], before, strict=True)] == [True, False, True, False]
    compare(update("adam", n_models=2, skipped=(0, 1)), dtype)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("rule", RULE_NAMES)
def test_values_that_are_not_finite_survive_an_update(rule, value):
    compare(update(rule, gradient=value), "float32")


@pytest.mark.parametrize("value", [0.0, 1e30, np.inf, np.nan])
def test_a_gradient_is_clipped_by_its_norm(value, dtype):
    compare(update("sgd", ("clip",), gradient=value), dtype)
    compare(update("sgd", ("clip",), bounds=(0, 64 * 600), n_models=2), dtype)


# ---------------------------------------------------------------- a normalised layer


@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
@pytest.mark.parametrize("way", WAYS)
def test_a_normalised_layer_goes_forward_and_back(way, activation, rate, dtype):
    compare(normalised(way, activation, rate=rate), dtype)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_normalised_layer_of_any_size(sizes, way, dtype, monkeypatch):
    compare(normalised(way, "tanh", *sizes), dtype)
    divide_everything(monkeypatch)
    compare(normalised(way, "gelu", *sizes, rate=0.3), dtype)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sizes", DEGENERATE, ids=str)
def test_what_cancels_in_a_normalised_layer_leaves_rounding_alone(sizes, way, dtype):
    b, truth = get_backend("numba", dtype=dtype), get_backend("numpy", dtype="float64")
    case = normalised(way, "tanh", *sizes)
    found, wanted = case(b), case(truth)
    for name, value in wanted.items():
        assert np.allclose(found[name], value, rtol=1e-3, atol=1e-10 if dtype == "float64" else 1e-2), name


# ---------------------------------------------------------------- threads


@pytest.mark.parametrize("case", [
    update("adam", ("l2",), 3, (0, 6400, 9600)),
    output("categorical_cross_entropy", "softmax", 3, 700, 5),
    layer("tanh", 4, 33, 5, 70),
    normalised("layer", "gelu", 4, 67, 1, 70, 0.3),
    normalised("batch", "gelu", 4, 67, 1, 70, 0.3),
], ids=["update", "output", "layer", "normalised rows", "normalised batch"])  # fmt: skip
def test_one_thread_and_two_give_the_same_bits(case, dtype, monkeypatch):
    divide_everything(monkeypatch)
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("GPUMLP_NUM_THREADS", threads)
        b = get_backend("numba", dtype=dtype)
        with b.session():
            found.append(case(b))
    for name, value in found[0].items():
        assert value.tobytes() == found[1][name].tobytes(), name


def test_an_activation_of_rows_that_has_no_loop_is_numpys():
    f = replace(ACTIVATIONS.get("softmax"), name="own", value=lambda z: ACTIVATIONS.get("softmax").value(2 * z))
    b = get_backend("numba", dtype="float64")
    a_in, W, bias = draw(1, 2, 3, 4), draw(2, 2, 5, 4), draw(3, 2, 5)
    z, a = np.empty((2, 3, 5)), np.empty((2, 3, 5))
    b.forward_layer(f, a_in, W, bias, z, a)
    assert np.allclose(a, f.value(a_in @ W.transpose(0, 2, 1) + bias[:, None]))
