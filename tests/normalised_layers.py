"""A normalised layer on small arrays, forward and back: a case as the tests of backends compare them."""

import numpy as np

from gpumlp.backends.protocol import Dropout, Normalisation, StepNumbers
from gpumlp.formulas.activations import ACTIVATIONS, reads_z
from gpumlp.formulas.update_rules import RULES, finished_names, given_names
from gpumlp.randomness.seeds import model_keys

GAP = 7.0  # stands between tensors, and stays there
SIZES = [(1, 4, 1, 3), (2, 300, 3, 33), (3, 65, 2, 130), (1, 7, 1, 1200), (5, 6, 2, 5)]  # models, batch, in, out
DEGENERATE = [(1, 1, 1, 1), (5, 2, 2, 1), (3, 5, 2, 2), (3, 2, 2, 7)]  # in which all that is carried back may cancel
WAYS = ("layer", "batch", "batch, weights of each model", "batch, running", "batch, no training")


def draw(seed, *shape):
    """Normal numbers that float32 holds exactly."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def rows_of_tensors(b, n_models, n, names, values, gap=5):
    """A buffer (n_models, ...) and a view (n_models, n) of it for each name, with `gap` values of GAP around each."""
    length = gap + len(names) * (n + gap)
    buffer = np.full((n_models, length), GAP)
    starts = [gap + i * (n + gap) for i in range(len(names))]
    for start, name in zip(starts, names, strict=True):
        buffer[:, start : start + n] = values(name)
    there = b.asarray(buffer.astype(b.dtype))
    return there, {name: there[:, start : start + n] for name, start in zip(names, starts, strict=True)}


def normalised(way, activation="tanh", n_models=3, batch=5, n_in=4, n_out=6, rate=0.0, skipped=(1,), gap=5, offset=0.0):
    """The case of one normalised layer: forward, then delta and all gradients back.

    way   one of WAYS: "batch" as in a training, with a row of weight 0 and a model that is skipped; with a line of
          weights for each model, of which one has one row that counts, and one none; with the running statistics, as
          when predicting, and then nothing back; or without a training whose running statistics follow
    """
    f, kind = ACTIVATIONS.get(activation), way.partition(",")[0]

    def case(b):
        def put(x):
            return b.asarray(np.array(x, b.dtype))

        def unset(*shape):
            return put(np.full(shape, np.nan))

        names = ("b", "gamma", "beta", "running mean", "running variance")
        theta, of = rows_of_tensors(
            b,
            n_models,
            n_out,
            names,
            lambda name: np.abs(draw(len(name), n_models, n_out)) + offset * (name == "b"),
            gap,
        )
        grad, d = rows_of_tensors(b, n_models, n_out, ("b", "gamma", "beta"), lambda name: GAP, gap)
        running = of["running mean"], of["running variance"]
        shape = n_models, batch, n_out
        z, delta = unset(*shape), unset(*shape)
        a = unset(*shape)
        u = unset(*shape) if reads_z(f) else a
        weights = np.random.default_rng(3).uniform(0.5, 2, (n_models if "each" in way else 1, batch))
        weights[0, batch // 2] = 0
        if "each" in way:
            weights[-1] = 0
            weights[n_models // 2, 1:] = 0
        numbers = None
        if kind == "layer":
            norm = Normalisation(kind, *(unset(n_models, batch) for _ in range(2)))
        elif "running" in way:
            norm = Normalisation(kind, *running)
        else:
            trains = "no training" not in way
            numbers = numbers_of(b, n_models, skipped) if trains else None
            norm = Normalisation(
                kind,
                *(unset(n_models, n_out) for _ in range(2)),
                put(weights),
                unset(n_models),
                running if trains else None,
                numbers,
            )
        dropout = None
        if rate:
            mask = b.empty(shape, np.bool_) if b.keeps_masks else None
            keys = b.asarray(model_keys([4] * n_models, range(n_models)))
            dropout = Dropout(2, rate, keys, b.asarray(np.array([7, 0, 0], np.int64)), mask)
        W, W_next = put(draw(1, n_models, n_out, n_in)), put(draw(2, n_models, 2, n_out))
        delta_next = draw(5, n_models, batch, 2)
        if norm.row_weight is not None:
            delta_next = delta_next * (weights > 0)[:, :, None]
        b.normalised_layer(
            f, norm, put(draw(6, n_models, batch, n_in)), W, of["b"], of["gamma"], of["beta"], z, u, a, dropout
        )
        found = {"z": z, "u": u, "a": a, "theta": theta, "mean": norm.mean, "variance": norm.variance}
        if norm.count is not None:
            found["count"] = norm.count
        if "running" not in way:
            b.hidden_delta(f, put(delta_next), W_next, u, a, delta, d["beta"], dropout)
            b.normalised_delta(norm, z, of["gamma"], d["beta"], delta, d["gamma"], d["b"])
            found |= {"delta": delta, "grad": grad}
        return {name: np.array(b.to_host(x)) for name, x in found.items()}

    return case


def numbers_of(b, n_models, skipped):
    """Numbers of a step in which these models are skipped."""
    rule = RULES.get("sgd")
    hyper = {name: np.ones((1, n_models)) for name in given_names(rule)}
    names = finished_names(rule)
    skip = np.zeros(n_models, np.bool_)
    skip[[m for m in skipped if m < n_models]] = True
    table = b.empty((len(names), 1, n_models))
    numbers = StepNumbers(rule, frozenset(), hyper, names, table, np.ones((1, 1)), skip)
    b.bring_numbers(numbers)
    return numbers
