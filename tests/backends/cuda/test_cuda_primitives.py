"""Every method of the protocol gives on cuda what it gives on NumPy."""

import numpy as np
import pytest
from cuda_cases import (
    DTYPES,
    WIDTHS,
    clock_at,
    compute,
    draw,
    expect_agreement,
    gather,
    layer,
    norm,
    numbers_of,
    on_host,
    opened,
    output,
    put,
    uniform,
    unset,
    update,
    whole,
)

from gpumlp.backends.protocol import FIRST_BAD, HITS, POSITION, Batch, BatchSource, Tally
from gpumlp.formulas.activations import ACTIVATIONS, reads_z
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.output_delta import fits
from gpumlp.formulas.update_rules import RULES

NAMES = [a.name for a in ACTIVATIONS.definitions() if not a.row_wise]
PAIRS = [(c.name, a.name) for c in COSTS.definitions() for a in ACTIVATIONS.definitions() if fits(c, a)]
FEW_PAIRS = [(c, a) for c, a in PAIRS if c == "quadratic" or a in ("identity", "softmax", "exp", "sigmoid")]
X_DTYPES = ("uint8", "bool", "int16", "int32", "int64", "uint32", "float32", "float64")

both_dtypes = pytest.mark.parametrize("dtype", DTYPES)


# ---------------------------------------------------------------- a layer


@both_dtypes
@pytest.mark.parametrize("activation", NAMES)
def test_every_activation_goes_forward_and_back(activation, dtype):
    expect_agreement(layer(activation, in_place=not reads_z(ACTIVATIONS.get(activation))), dtype)


@pytest.mark.parametrize("activation", NAMES)
def test_every_activation_goes_forward_and_back_under_dropout(activation):
    expect_agreement(layer(activation, rate=0.4), "float64")


@both_dtypes
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_layer_of_any_width(width, rate, dtype):
    expect_agreement(layer("tanh", n_out=width, rate=rate), dtype)
    expect_agreement(layer("gelu", n_models=1, batch=3, n_in=1, n_out=width, n_next=1, rate=rate), dtype)
    expect_agreement(layer("tanh", n_in=width, n_out=3, n_next=33, rate=rate, shared=True, in_place=True), dtype)


@both_dtypes
@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize(
    ("width", "batch"),
    [
        pytest.param(130, 300, id="three chunks of rows, two tiles"),
        pytest.param(33, 517, id="chunks, unaligned"),
        pytest.param(16, 2051, id="chunks, narrow"),
        pytest.param(3, 4099, id="a chunk of three rows, one lane"),
        pytest.param(130, 128, id="exactly one chunk"),
        pytest.param(130, 129, id="one row more than a chunk"),
    ],
)
def test_bias_gradients_over_several_chunks(width, batch, n_models, dtype):
    expect_agreement(layer("tanh", n_models, batch, n_in=2, n_out=width, n_next=1, in_place=True), dtype)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_a_grid_smaller_than_the_work_does_all_of_it(most, monkeypatch):
    monkeypatch.setattr("gpumlp.backends.cuda.backend.MAX_BLOCKS", most)
    monkeypatch.setattr("gpumlp.backends.cuda.backend.MAX_CHUNKS", most)
    expect_agreement(layer("tanh", batch=301, n_out=33, rate=0.3), "float32")
    expect_agreement(layer("tanh", batch=301, n_out=130), "float64")
    expect_agreement(output("categorical_cross_entropy", "softmax", batch=203, n_out=11, hits=True), "float32")
    expect_agreement(update("adam", bounds=(0, 6016, 7040)), "float32")
    expect_agreement(norm(draw(1, 3, 9000)), "float32")
    expect_agreement(gather(n_rows=700, batch=301, n_in=33), "float32")
    expect_agreement(gather(n_rows=700, batch=301, n_in=32, x_dtype="uint8", labels="int64"), "float32")
    expect_agreement(softmax_case(batch=301, n_out=11), "float32")
    x = put(opened("cuda", "float32"), np.where(np.arange(3 * 9000).reshape(3, -1) == 26999, np.inf, 1))
    assert opened("cuda", "float32").finite_models(x).tolist() == [True, True, False]


def softmax_case(n_models=3, batch=5, n_out=6, special=None):
    def case(b):
        x = draw(2, n_models, batch, 3)
        if special is not None:
            x[1, 2, 0] = special
        z, a = (put(b, np.full((n_models, batch, n_out), np.nan)) for _ in range(2))
        W, bias = (put(b, draw(3, n_models, *shape)) for shape in [(n_out, 3), (n_out,)])
        b.forward_layer(ACTIVATIONS.get("softmax"), put(b, x), W, bias, z, a)
        return {"a": a}

    return case


@both_dtypes
@pytest.mark.parametrize("width", WIDTHS)
def test_softmax_of_any_width(width, dtype):
    found = expect_agreement(softmax_case(n_out=width), dtype)
    assert np.allclose(found["a"].sum(axis=2), 1, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_softmax_keeps_what_is_not_finite_in_its_row(value):
    with np.errstate(all="ignore"):
        found = expect_agreement(softmax_case(special=value), "float64")
    assert np.isfinite(np.delete(found["a"].reshape(15, -1), 7, axis=0)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "gelu", "hard_tanh"])
def test_an_activation_keeps_nan(activation, value):
    def case(b):
        x = draw(2, 1, 5, 4)
        x[0, 3, 1] = value
        W, bias = put(b, np.eye(4)[None]), put(b, np.zeros((1, 4)))
        z, a = put(b, np.zeros((1, 5, 4))), put(b, np.zeros((1, 5, 4)))
        b.forward_layer(ACTIVATIONS.get(activation), put(b, x), W, bias, z, a)
        return {"z": z, "a": a}

    with np.errstate(all="ignore"):
        expect_agreement(case, "float32")


def test_linear_adds_no_bias():
    def case(b):
        z = put(b, np.full((3, 5, 6), np.nan))
        b.linear(put(b, draw(1, 1, 5, 4)), put(b, draw(2, 3, 6, 4)), z)
        return {"z": z}

    expect_agreement(case, "float32")


# ---------------------------------------------------------------- the output layer


@pytest.mark.parametrize(("cost", "activation"), PAIRS)
def test_every_cost_with_every_output_that_fits(cost, activation):
    expect_agreement(output(cost, activation, n_out=3), "float64")


@pytest.mark.parametrize(("cost", "activation"), FEW_PAIRS)
def test_every_cost_and_every_output_in_float32(cost, activation):
    expect_agreement(output(cost, activation, n_out=3), "float32")


WAYS = [
    pytest.param("quadratic", "identity", id="quadratic"),
    pytest.param("categorical_cross_entropy", "softmax", id="softmax"),
    pytest.param("kullback_leibler", "sigmoid", id="unmatched"),
]


@both_dtypes
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("cost", "activation"), WAYS)
def test_an_output_layer_of_any_width(cost, activation, train, dtype):
    for width in WIDTHS:
        expect_agreement(output(cost, activation, n_out=width, hits=True, train=train), dtype)
        one = output(cost, activation, 1, 3, width, hits=True, train=train)
        expect_agreement(one, dtype)


@both_dtypes
@pytest.mark.parametrize(("cost", "activation"), WAYS)
@pytest.mark.parametrize(
    ("n_out", "batch"), [(2, 259), (2, 600), (33, 50), (130, 17), (10, 301), (33, 1041), (1, 1025)]
)
def test_an_output_layer_over_several_chunks(n_out, batch, cost, activation, dtype):
    expect_agreement(output(cost, activation, 3, batch, n_out, per_model=True, hits=True), dtype)
    expect_agreement(output(cost, activation, 1, batch, n_out, hits=True, train=False), dtype)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("weights_per_model", [True, False])
@pytest.mark.parametrize("per_model", [True, False])
def test_targets_and_weights_shared_or_of_each_model(per_model, weights_per_model, train):
    case = output("quadratic", "tanh", 3, 21, 4, per_model, weights_per_model, hits=True, train=train, steps=3)
    expect_agreement(case, "float64")


def hits_of(train=True, **options):
    case = output("quadratic", "identity", hits=True, train=train, **options)
    with np.errstate(all="ignore"):
        return expect_agreement(case, "float64")["tally"][HITS]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("n_out", [2, 3, 33, 130])
def test_ties_and_nan_are_hits_as_numpys_argmax_says(n_out, train):
    rng = np.random.default_rng(0)
    for values in ([0.0, 1.0], [0.0, np.nan], [-np.inf, 1.0], [np.nan], [-np.inf], [np.inf, -np.inf, np.nan, 0.0]):
        z, y = (rng.choice(values, (3, 41, n_out)).astype(np.float32) for _ in range(2))
        hits_of(train, batch=41, n_out=n_out, z_values=z, y_values=y, per_model=True)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("threshold", [0.5, 0.0])
def test_one_output_is_a_hit_by_its_threshold(threshold, train):
    rng = np.random.default_rng(0)
    z = rng.choice(np.array([-1, 0, 0.5, 0.49999997, 2, np.nan, np.inf], np.float32), (3, 300, 1))
    y = rng.choice(np.array([0, 1, threshold], np.float32), (3, 300, 1))
    n = hits_of(train, batch=300, n_out=1, z_values=z, y_values=y, per_model=True, threshold=threshold)
    assert n[0] > 20


def test_where_targets_name_no_classes_no_hits_are_counted():
    found = expect_agreement(output("quadratic", "identity", hits=False), "float64")
    assert found["tally"][HITS].tolist() == [6, 7, 8]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("train", [True, False])
def test_the_first_step_whose_cost_is_not_finite_is_noted_for_its_model(value, train):
    z = draw(6, 3, 600, 2)
    z[1, 577, 1] = value
    with np.errstate(all="ignore"):
        case = output("quadratic", "identity", batch=600, z_values=z, train=train)
        found = expect_agreement(case, "float32")
    assert found["tally"][FIRST_BAD].tolist() == ([0, 42, 0] if train else [0, 0, 0])


def test_a_later_bad_step_does_not_replace_the_first():
    z = draw(6, 3, 5, 2)
    z[1] = np.nan
    with np.errstate(all="ignore"):
        found = expect_agreement(output("quadratic", "identity", z_values=z, steps=3), "float32")
    assert found["tally"][FIRST_BAD].tolist() == [0, 42, 0]


# ---------------------------------------------------------------- batches


@both_dtypes
@pytest.mark.parametrize("labels", [None, "int64"])
@pytest.mark.parametrize("x_dtype", X_DTYPES)
def test_inputs_of_every_dtype_are_cast(x_dtype, labels, dtype):
    for n_in in (4, 16):  # 16: rows are read as vectors
        expect_agreement(gather(n_in=n_in, x_dtype=x_dtype, labels=labels), dtype)


@pytest.mark.parametrize("x_dtype", ["uint8", "float32", "float64"])
def test_inputs_may_begin_anywhere(x_dtype):
    """What a user has on the device can be a part of something else."""

    def case(b):
        flat = b.asarray(np.arange(1 + 10 * 16, dtype=x_dtype) % 251)
        X, found = flat[1:].reshape(10, 16), {}
        into = Batch(unset(b, 1, 5, 16), unset(b, 1, 5, 1), unset(b, 1, 5), b.asarray(np.zeros(1)))
        for position in (0, 5):
            source = BatchSource(X, put(b, draw(1, 10, 1)), None, None, 5, True)
            b.gather_batch(source, clock_at(b, position=position), into, Tally(b.asarray(np.zeros((4, 1)))), None)
            found[f"a0 {position}"] = whole(b, into.a0)
        return found

    expect_agreement(case, "float32")


@pytest.mark.parametrize("labels", ["uint8", "int32"])
def test_labels_of_other_dtypes_name_rows_of_the_codes(labels):
    expect_agreement(gather(labels=labels), "float32")


@both_dtypes
@pytest.mark.parametrize("order", ["own", "shared", "explicit", "none"])
@pytest.mark.parametrize("weights", [None, "shared", "own"])
@pytest.mark.parametrize("mean", [True, False])
def test_batches_of_every_order_and_weighting(mean, weights, order, dtype):
    expect_agreement(gather(order=order, weights=weights, mean=mean), dtype)
    expect_agreement(gather(order=order, weights=weights, mean=mean, n_models=1, batch=23), dtype)


@both_dtypes
@pytest.mark.parametrize("order", ["own", "none"])
@pytest.mark.parametrize("weights", [None, "shared", "own"])
@pytest.mark.parametrize("mean", [True, False])
def test_batches_of_folds(mean, weights, order, dtype):
    of_folds = {"order": order, "weights": weights, "mean": mean, "n_models": 5, "rule": "momentum"}
    expect_agreement(gather(folds=(16, 17, 20), **of_folds), dtype)
    expect_agreement(gather(folds=(16, 17, 20), by_batch=True, **of_folds), dtype)
    expect_agreement(gather(folds=(1, 23, 2), batch=23, labels="int64", **of_folds), dtype)


@pytest.mark.parametrize("n_rows", [1, 2, 3, 5, 16, 17, 64, 65, 257])
def test_an_order_is_that_of_a_folds_own_number_of_rows(n_rows):
    expect_agreement(gather(300, 300, folds=(n_rows, 300)), "float32")


@both_dtypes
@pytest.mark.parametrize("order", ["own", "shared", "none"])
@pytest.mark.parametrize("n_out", [2, 8])
def test_a_label_means_to_each_model_what_its_codes_say(n_out, order, dtype):
    expect_agreement(gather(order=order, n_out=n_out, labels="int64", own_codes=True, weights="own"), dtype)
    expect_agreement(gather(folds=(12, 13), n_out=n_out, labels="uint8", own_codes=True), dtype)


@both_dtypes
@pytest.mark.parametrize("n_groups", [1, 2])
def test_each_model_has_the_factor_of_its_own_schedule(n_groups, dtype):
    expect_agreement(gather(rule="adam", n_groups=n_groups, own_factors=True), dtype)


@pytest.mark.parametrize("width", WIDTHS)
def test_batches_of_any_width(width):
    for x_dtype in ("float32", "uint8"):
        expect_agreement(gather(n_in=width, n_out=width, x_dtype=x_dtype), "float32")
    expect_agreement(gather(n_in=width, x_dtype="uint8"), "float64")


@pytest.mark.parametrize(
    ("n_rows", "batch"), [(1, 1), (2, 1), (2, 2), (7, 3), (64, 64), (65, 64), (300, 299), (1000, 257)]
)
def test_batches_of_any_number_of_rows(n_rows, batch):
    for order, weights in (("own", "own"), ("shared", None), ("none", "shared")):
        expect_agreement(gather(n_rows, batch, order=order, weights=weights), "float32")


def test_a_batch_without_weight_has_no_shares():
    def case(b):
        weights = np.array([[0.0, 0, 0, 1, 2, 0]])
        source = BatchSource(
            put(b, draw(1, 6, 4)), put(b, draw(2, 6, 2)), None, b.asarray(weights), 3, True, None, None
        )
        into = Batch(put(b, np.ones((1, 3, 4))), put(b, np.ones((1, 3, 2))), put(b, np.ones((1, 3))), b.asarray([9.0]))
        b.gather_batch(source, b.asarray(np.zeros(3, np.int64)), into, Tally(b.asarray(np.zeros((4, 2)))), None)
        return {"row_weight": into.row_weight, "scale": into.scale}

    found = expect_agreement(case, "float32")
    assert found["row_weight"].tolist() == [[0, 0, 0]]
    assert found["scale"].tolist() == [0]


@both_dtypes
@pytest.mark.parametrize("n_groups", [1, 2])
@pytest.mark.parametrize("rule", list(RULES))
def test_the_numbers_of_every_rule(rule, n_groups, dtype):
    for mean in (True, False):
        expect_agreement(gather(rule=rule, n_groups=n_groups, mean=mean), dtype)


def test_the_numbers_of_more_models_than_a_block_has_threads():
    expect_agreement(gather(n_rows=5, batch=2, n_models=300, n_in=1, n_out=1, rule="adam", n_groups=2), "float32")


def test_a_recorded_step_uses_the_numbers_that_were_brought_last():
    rule = RULES.get("momentum")

    def case(b):
        numbers, clock = numbers_of(b, rule, 2, 3, n_steps=4), clock_at(b)
        source = BatchSource(put(b, draw(1, 20, 4)), put(b, draw(2, 20, 2)), None, None, 5, True)
        into = Batch(unset(b, 1, 5, 4), unset(b, 1, 5, 2), unset(b, 1, 5), b.asarray(np.zeros(1)))
        tally, theta, grad = Tally(b.asarray(np.zeros((4, 3)))), put(b, draw(3, 3, 96)), put(b, draw(4, 3, 96))
        state, found = put(b, draw(5, 1, 3, 96)), {}

        def step():
            b.gather_batch(source, clock, into, tally, numbers)
            b.update(numbers, theta, grad, state, (0, 64, 96), clock, 5)

        captured = b.capture(step)
        for epoch in range(5):
            if epoch:
                numbers.hyper["eta"][:] *= 0.5
            if epoch > 1:
                numbers.factors = np.linspace(epoch, 1, 4)[:, None]
            if epoch > 2:
                numbers.skip[:] = [False, True, epoch == 3]
            b.bring_numbers(numbers)
            b.fill(clock[POSITION : POSITION + 1], 0)
            for _ in range(4):
                captured()
            found |= {f"theta {epoch}": on_host(b, theta), f"table {epoch}": on_host(b, numbers.table)}
        return found

    expect_agreement(case, "float64")


# ---------------------------------------------------------------- updates


@both_dtypes
@pytest.mark.parametrize("extras", [(), ("clip", "l1", "l2")], ids=["plain", "all"])
@pytest.mark.parametrize("rule", list(RULES))
def test_every_rule_with_and_without_what_acts_besides(rule, extras, dtype):
    expect_agreement(update(rule, extras), dtype)


@pytest.mark.parametrize("extra", ["clip", "l1", "l2"])
def test_each_extra_acts_by_itself(extra):
    expect_agreement(update("momentum", (extra,)), "float64")


@both_dtypes
@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize("bounds", [(0, 32), (0, 64), (0, 64, 96), (0, 2080, 2144), (0, 32, 4128)], ids=str)
@pytest.mark.parametrize("skipped", [(), (0,), "last", "all"], ids=str)
def test_groups_and_skipped_models(bounds, n_models, skipped, dtype):
    skipped = {"last": (n_models - 1,), "all": range(n_models)}.get(skipped, skipped)
    found = expect_agreement(update("adam", ("l2",), n_models, bounds, skipped, n_params=bounds[-1] + 32), dtype)
    assert (found["theta"][:, bounds[-1] :] == draw(21, n_models, bounds[-1] + 32)[:, bounds[-1] :]).all()


def test_minus_zero_and_what_is_not_finite_pass_through_an_update():
    def case(b):
        numbers = numbers_of(b, RULES.get("sgd"), 1, 1, extras=("l1",))
        b.bring_numbers(numbers)
        theta = put(b, np.resize([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-30, 1e30], (1, 64)))
        grad = put(b, np.resize([0.0, np.nan, -np.inf, 1.0, 1e38], (1, 64)))
        b.update(numbers, theta, grad, put(b, np.zeros((0, 1, 64))), (0, 64), clock_at(b), 1)
        return {"theta": theta}

    with np.errstate(all="ignore"):
        expect_agreement(case, "float32")


@both_dtypes
@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize("n", [1, 3, 32, 97, 1056, 9001, 70016])
def test_clipping_by_the_norm_of_a_part(n, n_models, dtype):
    found = expect_agreement(norm(5 + draw(1, n_models, n + 65), (0, n)), dtype)["table"][-1]
    assert (found < 1).all()
    assert (found[0] == found[1]).all()
    assert (expect_agreement(norm(1e-6 * draw(1, n_models, n)), dtype)["table"][-1] == 1).all()


@both_dtypes
@pytest.mark.parametrize("scale", [0, 1e-20, 1e30, np.nan, np.inf])
def test_clipping_of_no_huge_and_not_finite_gradients(scale, dtype):
    gradient = draw(1, 3, 1056)
    gradient[1] = np.float32(0.01)
    with np.errstate(all="ignore"):
        gradient[1, 1003:] *= np.float32(scale)
        gradient[2] *= np.float32(scale) if np.isfinite(scale) else 1
        case = norm(gradient, clip_norm=np.full(3, 0.25))
        found, truth = expect_agreement(case, dtype)["table"][-1], compute(case, "numpy", "float64")["table"][-1]
    assert ((found >= 0) & (found <= 1)).all()
    assert np.allclose(found, truth, rtol=1e-6, atol=0)


# ---------------------------------------------------------------- arrays


@both_dtypes
@pytest.mark.parametrize("n", [1, 3, 4, 5, 33, 1023, 5000])
def test_models_with_a_number_that_is_not_finite_are_found(n, dtype):
    b, x = opened("cuda", dtype), np.zeros((4, n))
    x[1, n // 2], x[2, 0], x[3, n - 1] = np.nan, np.inf, -np.inf
    assert b.finite_models(put(b, x)).tolist() == [True, False, False, False]
    assert b.finite_models(put(b, np.ones((4, n)))).tolist() == [True] * 4
    part = put(b, np.hstack([x, np.full((4, 3), np.nan)]))[:, :n]
    assert b.finite_models(part).tolist() == [True, False, False, False]
    assert b.finite_models(put(b, x[1:2])).tolist() == [False]


def test_copies_broadcast_and_cast_into_parts():
    def case(b):
        out = put(b, np.zeros((3, 7)))
        b.copy(put(b, draw(1, 1, 4)), out[:, 2:6])
        b.fill(out[1], 5.0)
        return {"out": out}

    expect_agreement(case, "float32")


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float16", ">f4", ">i8", "bool", "float64"])
def test_arrays_keep_their_values_whatever_their_dtype(dtype):
    x = np.asfortranarray(uniform(0, 0, 2, 5, 3).astype(dtype))
    b = opened("cuda", "float32")
    there = b.asarray(x)
    assert np.array_equal(b.to_host(there), x)
    assert there.dtype.isnative
    assert there.flags.c_contiguous
    assert np.array_equal(b.to_host(b.asarray(x[::2, 1:], np.float32)), x[::2, 1:].astype(np.float32))


class Interface:
    """An array of another library: one protocol, no CuPy type."""

    def __init__(self, array, name):
        self.kept = array
        if name == "__dlpack__":
            self.__dict__["__dlpack__"] = array.__dlpack__
            self.__dict__["__dlpack_device__"] = array.__dlpack_device__
        else:
            self.__cuda_array_interface__ = array.__cuda_array_interface__


@pytest.mark.parametrize("name", ["__dlpack__", "__cuda_array_interface__"])
def test_arrays_of_other_libraries_are_taken_without_a_copy(name):
    b = opened("cuda", "float32")
    x = put(b, draw(1, 5, 3))
    other = Interface(x, name)
    taken = b.asarray(other)
    assert taken.data.ptr == x.data.ptr
    assert b.asarray(x) is x
    assert b.to_host(b.asarray(other, np.float64)).dtype == np.float64
    assert np.array_equal(b.to_host(b.asarray(x[:, ::2])), draw(1, 5, 3)[:, ::2])
