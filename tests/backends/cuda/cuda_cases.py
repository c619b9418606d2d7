"""Work for both backends on the same small arrays, and how far their results may lie apart.

Importing this skips a test file where there is no CUDA device.

A case is a function of a backend that returns {name: array on the host}. In float64 each number on cuda may differ from
NumPy's by 1e-12 of itself and 1e-13 of the array's largest. In float32 it may err by 4 times the most that NumPy's
float32 errs against float64 on the same inputs, and 8 units in the last place of the largest. Whole numbers are equal.
"""

from dataclasses import replace
from functools import cache

import devices
import numpy as np
import pytest

from gpumlp.backends.protocol import Batch, BatchSource, Dropout, StepNumbers, Tally
from gpumlp.backends.select import get_backend
from gpumlp.formulas.activations import ACTIVATIONS
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.output_delta import output_delta
from gpumlp.formulas.update_rules import RULES, finished_names, given_names
from gpumlp.network.places import build_places
from gpumlp.randomness.seeds import model_keys, shared_key

if devices.in_use().kind == "none":
    pytest.skip(f"needs a CUDA device: {devices.in_use().reason}", allow_module_level=True)

DTYPES = ("float32", "float64")
WIDTHS = (1, 3, 4, 7, 8, 33, 130)
GAP = 7.0  # stands between the tensors of a gradient, and stays there
FEW_BITS = 2**-23  # of float32


@cache
def opened(name, dtype):
    """The one backend of this name and dtype, so that its scratch buffers and tickets serve case after case."""
    return get_backend(name, dtype=dtype)


def compute(case, name, dtype):
    b = opened(name, dtype)
    with b.session():
        return {key: whole(b, value) for key, value in case(b).items()}


def on_host(b, x):
    """A copy, whose content stays."""
    return np.array(x if isinstance(x, np.ndarray) else b.to_host(x))


def whole(b, x):
    """The same of all that an array is a part of."""
    return on_host(b, x if x.base is None else x.base)


def expect_agreement(case, dtype):
    """Fail unless `case` gives on cuda what it gives on NumPy; return what it gives."""
    found, truth = compute(case, "cuda", dtype), compute(case, "numpy", "float64")
    own = truth if dtype == "float64" else compute(case, "numpy", "float32")
    assert found.keys() == truth.keys()
    for name, value in found.items():
        assert value.shape == truth[name].shape, name
        assert value.dtype == own[name].dtype, name
        expect_near(name, value, truth[name], own[name], dtype)
    return found


def expect_near(name, found, truth, own, dtype):
    """`own` is what NumPy gives in the dtype, `truth` what it gives in float64."""
    if found.dtype.kind in "biu":
        assert np.array_equal(found, truth), name
        return
    for special in (np.isnan, np.isposinf, np.isneginf):
        assert np.array_equal(special(found), special(truth)), f"{name}: {special.__name__}"
    finite = np.isfinite(truth)
    found, own, truth = (np.asarray(x, np.float64)[finite] for x in (found, own, truth))
    largest = np.abs(truth).max(initial=0)
    if dtype == "float64":
        allowed = 1e-12 * np.abs(truth) + 1e-13 * largest
    else:
        allowed = 4 * np.abs(own - truth).max(initial=0) + 8 * FEW_BITS * largest
    wrong = ~(np.abs(found - truth) <= allowed)
    assert not wrong.any(), f"{name}: {found[wrong][:3]} instead of {truth[wrong][:3]}"


# ---------------------------------------------------------------- arrays


def draw(seed, *shape):
    """Normal numbers that float32 holds exactly."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def uniform(seed, low, high, *shape):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def put(b, x):
    return b.asarray(np.array(x, b.dtype))


def unset(b, *shape):
    """An array of NaN, from a multiple of 16 bytes on, between other values that have to stay."""
    n = int(np.prod(shape))
    buffer = np.full(n + 8, GAP)
    buffer[4 : n + 4] = np.nan
    return put(b, buffer)[4 : n + 4].reshape(shape)


def tensors(b, n_models, shapes, values, gap=5):
    """A buffer (n_models, n) and a view of it for each shape, with `gap` values around each: rows begin anywhere.

    values   of the whole buffer: a number, or a function (n_models, n) -> array
    """
    offsets = [gap]
    for shape in shapes:
        offsets.append(offsets[-1] + int(np.prod(shape)) + gap)
    n = offsets[-1]
    buffer = put(b, np.full((n_models, n), values) if np.isscalar(values) else values(n_models, n))
    views = [
        buffer[:, start : start + int(np.prod(shape))].reshape(n_models, *shape)
        for start, shape in zip(offsets, shapes, strict=False)
    ]
    return buffer, views


def clock_at(b, step=0, epoch=0, position=0):
    return b.asarray(np.array([step, epoch, position], np.int64))


# ---------------------------------------------------------------- a layer, forward and back


def layer(
    activation,
    n_models=3,
    batch=5,
    n_in=4,
    n_out=6,
    n_next=2,
    shared=False,
    rate=0.0,
    in_place=False,
    seed=4,
    number=2,
    step=7,
):
    """The case of one hidden layer: forward, then delta and the gradients back.

    seed, number, step   of the models, of the layer, of the training step: on which the dropout depends
    """
    f = ACTIVATIONS.get(activation)

    def case(b):
        theta, (W, bias, W_next) = tensors(
            b, n_models, [(n_out, n_in), (n_out,), (n_next, n_out)], lambda *shape: draw(1, *shape)
        )
        grad, (dW, db, _) = tensors(b, n_models, [(n_out, n_in), (n_out,), (n_next, n_out)], GAP)
        a_in = put(b, draw(2, 1 if shared else n_models, batch, n_in))
        delta_next = put(b, draw(3, n_models, batch, n_next))
        z, delta = unset(b, n_models, batch, n_out), unset(b, n_models, batch, n_out)
        a = z if in_place else unset(b, n_models, batch, n_out)
        dropout = None
        if rate:
            mask = b.empty(z.shape, np.bool_) if b.keeps_masks else None
            keys = b.asarray(model_keys([seed] * n_models, range(n_models)))
            dropout = Dropout(number, rate, keys, clock_at(b, step), mask)
        b.forward_layer(f, a_in, W, bias, z, a, dropout)
        b.hidden_delta(f, delta_next, W_next, z, a, delta, db, dropout)
        b.weight_gradient(delta, a_in, dW)
        return {"z": z, "a": a, "delta": delta, "grad": grad, "theta": theta}

    return case


# ---------------------------------------------------------------- the output layer


def targets_of(cost, activation, shape, seed=5):
    """Targets that the cost is defined for, some of them 0 and 1 where they may be."""
    y = uniform(seed, 0.1, 0.9, *shape)
    if activation.row_wise:
        y[..., 0] = 0 if shape[-1] > 1 else 1
        y = (y / y.sum(axis=-1, keepdims=True, dtype=np.float64)).astype(np.float32)
    elif cost.targets.holds(0.0, 1.0):
        y[:, ::3] = np.round(y[:, ::3])
    return y


def output(
    cost,
    activation,
    n_models=3,
    batch=5,
    n_out=2,
    per_model=False,
    weights_per_model=False,
    hits=False,
    threshold=None,
    train=True,
    z_values=None,
    y_values=None,
    steps=1,
):
    """The case of the output layer: cost and hits, and while training delta and db; in several steps into one tally."""
    c, f = COSTS.get(cost), ACTIVATIONS.get(activation)
    formulas = output_delta(c, f)
    n_inputs, n_weights = (n_models if own else 1 for own in (per_model, per_model or weights_per_model))
    y_values = targets_of(c, f, (n_inputs, batch, n_out)) if y_values is None else y_values
    z_values = draw(6, n_models, batch, n_out) if z_values is None else z_values

    def case(b):
        theta, (bias,) = tensors(b, n_models, [(n_out,)], lambda *shape: 0.25 * draw(7, *shape))
        grad, (db,) = tensors(b, n_models, [(n_out,)], GAP)
        row_weight = uniform(8, 0.1, 1, n_weights, batch)
        row_weight[:, -1:] = 0  # fills a short batch
        of_batch = Batch(
            b.empty((n_inputs, batch, 1)),
            put(b, np.broadcast_to(y_values, (n_inputs, batch, n_out))),
            put(b, row_weight),
            b.asarray(np.arange(2.0, 2 + n_weights)),
        )
        tally = Tally(b.asarray(np.arange(4.0 * n_models).reshape(4, -1) * [[1], [1], [1], [0]]), hits, threshold)
        found = {}
        for i in range(steps):
            clock = clock_at(b, step=41 + i, position=20)
            z, a, delta = put(b, z_values), unset(b, *z_values.shape), unset(b, *z_values.shape)
            if train:
                b.output_delta(formulas, f, z, bias, a, of_batch, clock, delta, db, tally)
                found |= {f"delta {i}": delta, f"grad {i}": grad}
            else:
                b.evaluate(formulas, f, z, bias, a, of_batch, clock, tally)
            found |= {f"z {i}": z, f"a {i}": a}
        return {**found, "tally": tally.values, "clock": clock, "theta": theta}

    return case


# ---------------------------------------------------------------- batches


def gather(
    n_rows=23,
    batch=5,
    n_models=3,
    n_in=4,
    n_out=2,
    order="own",
    weights=None,
    mean=True,
    labels=None,
    x_dtype=None,
    rule=None,
    n_groups=1,
    epoch=3,
    seed=4,
    folds=None,
    own_codes=False,
    own_factors=False,
    by_batch=False,
):
    """The case of all batches of one epoch.

    order        "own" for each model, "shared", "explicit", or "none": as the rows stand
    weights      None, "shared" or "own"
    labels       dtype of labels, None for targets
    x_dtype      None: the backend's
    folds        rows of each fold, which the models have in turn; keys are then for each model, or none
    own_codes    whether a label means another target to each model; own_factors: likewise of the schedule
    by_batch     whether penalties belong to a batch as a whole
    """
    model_ids = range(n_models)
    n_inputs = n_models if order == "own" or folds else 1
    n_weights = n_models if weights == "own" else 1
    lines = max(n_inputs, n_weights)

    def case(b):
        X = 60 * draw(seed, n_rows, n_in) + 100
        X = put(b, X) if x_dtype is None else b.asarray(X > 100 if x_dtype == "bool" else np.abs(X).astype(x_dtype))
        Y = put(b, draw(seed + 1, n_rows, n_out)) if labels is None else b.asarray(np.arange(n_rows, dtype=labels) % 3)
        keys = {"own": model_keys([seed] * n_models, model_ids), "shared": shared_key(seed)[None]}.get(order)
        codes = draw(seed + 2, *(n_models,) * own_codes, 3, n_out)
        source = BatchSource(
            X,
            Y,
            None if labels is None else put(b, codes),
            None if weights is None else b.asarray(np.random.default_rng(seed).uniform(0, 2, (n_weights, n_rows))),
            batch,
            mean,
            None if keys is None else b.asarray(keys),
            b.asarray(np.random.default_rng(seed).integers(0, n_rows, (1, n_rows))) if order == "explicit" else None,
        )
        into = Batch(
            unset(b, n_inputs, batch, n_in),
            unset(b, n_models if own_codes else n_inputs, batch, n_out),
            unset(b, lines, batch),
            b.asarray(np.full(lines, np.nan)),
        )
        if folds is not None:
            source = replace(source, **on_folds(b, folds, n_rows, n_models))
        tally = Tally(b.asarray(np.ones((4, n_models))))
        numbers = None if rule is None else numbers_of(b, RULES.get(rule), n_groups, n_models, source.n_steps)
        if own_factors:
            numbers.factors = numbers.factors * np.linspace(1, 2, n_models)
        if by_batch:
            numbers.by_batch = True
        if numbers is not None:
            b.bring_numbers(numbers)
        found = {}
        for step in range(source.n_steps):
            clock = clock_at(b, 100 + step, epoch, step * batch)
            b.gather_batch(source, clock, into, tally, numbers)
            found |= {f"{name} {step}": whole(b, getattr(into, name)) for name in ("a0", "y", "row_weight", "scale")}
            if numbers is not None:
                found[f"table {step}"] = on_host(b, numbers.table)
        return {**found, "tally": tally.values, "clock": clock}

    return case


def on_folds(b, sizes, n_rows, n_models):
    """What a source has of folds of these sizes."""
    folds = [np.random.default_rng(n).permutation(n_rows)[:n] for n in sizes]
    of_model = np.arange(n_models) % len(sizes)
    return build_places([folds[f] for f in of_model], of_model).on(b)


def numbers_of(b, rule, n_groups, n_models, n_steps=1, extras=()):
    """Numbers of a step, different for each group, model and step."""
    given, names = given_names(rule), finished_names(rule)
    hyper = {name: np.random.default_rng(i).uniform(0.1, 0.9, (n_groups, n_models)) for i, name in enumerate(given, 11)}
    table = put(b, uniform(12, 0.1, 0.9, len(names), n_groups, n_models))
    factors = np.linspace(1, 0.3, n_steps)[:, None]
    return StepNumbers(rule, frozenset(extras), hyper, names, table, factors, np.zeros(n_models, np.bool_))


# ---------------------------------------------------------------- updates


def update(rule, extras=(), n_models=3, bounds=(0, 64, 96), skipped=(), n_params=None):
    """The case of one update of all parameters."""
    rule = RULES.get(rule)
    n_params = n_params or bounds[-1]

    def case(b):
        numbers = numbers_of(b, rule, len(bounds) - 1, n_models, extras=extras)
        numbers.skip[list(skipped)] = True
        b.bring_numbers(numbers)
        theta, grad = put(b, draw(21, n_models, n_params)), put(b, draw(22, n_models, n_params))
        state = put(b, np.abs(draw(23, len(rule.state), n_models, n_params)))
        clock = clock_at(b, 8, 2, 15)
        b.update(numbers, theta, grad, state, bounds, clock, 5)
        return {"theta": theta, "grad": grad, "state": state, "clock": clock, "table": numbers.table}

    return case


def norm(gradient, bounds=None, n_groups=2, clip_norm=None):
    """The case of clipping a gradient (n_models, n), of which the part within `bounds` counts."""
    n_models, n = gradient.shape
    begin, end = bounds or (0, n)
    clip_norm = np.linspace(0.5, 2, n_models) if clip_norm is None else clip_norm

    def case(b):
        numbers = numbers_of(b, RULES.get("momentum"), n_groups, n_models, extras=("clip",))
        grad = put(b, gradient)
        b.gradient_norm(grad[:, begin:end], b.asarray(clip_norm), numbers)
        return {"table": numbers.table, "grad": grad}

    return case
