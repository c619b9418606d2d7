"""Cuda and NumPy draw the same random numbers, bit for bit, and so learn the same but for rounding."""

import numpy as np
import pytest
from cuda_cases import compute, gather, layer
from cuda_runs import train

import gpumlp
from gpumlp.network.initialisers import INITIALISERS

N_CONFIGURATIONS = 200


def configurations():
    return [np.random.default_rng(i) for i in range(N_CONFIGURATIONS)]


def on_both(case, dtype="float32"):
    return (compute(case, name, dtype) for name in ("cuda", "numpy"))


def test_the_order_of_rows_is_numpys_bit_for_bit():
    for rng in configurations():
        n_rows = int(rng.choice([rng.integers(1, 20), rng.integers(20, 600), 2 ** rng.integers(0, 9)]))
        case = gather(
            n_rows=n_rows,
            batch=int(rng.integers(-(-n_rows // 4), n_rows + 1)),
            n_models=int(rng.integers(1, 4)),
            n_in=int(rng.integers(1, 9)),
            order=rng.choice(["own", "shared"]),
            labels=rng.choice([None, "int64"]),
            epoch=int(rng.choice([0, 1, rng.integers(2**31), 2**32 + 5])),
            seed=int(rng.integers(2**40)),
        )
        found, wanted = on_both(case)
        for name, value in wanted.items():
            if name.startswith(("a0", "y")):
                assert found[name].tobytes() == value.tobytes(), name


def test_dropout_masks_are_numpys_bit_for_bit_forward_and_back():
    for rng in configurations():
        case = layer(
            "identity",
            n_models=int(rng.integers(1, 4)),
            batch=int(rng.integers(1, 40)),
            n_out=int(rng.choice([1, 2, 3, 4, 5, 7, 8, 33, 64, 130])),
            rate=float(rng.choice([0.5, 0.1, 1e-9, 0.999, rng.uniform()])),
            in_place=bool(rng.integers(2)),
            seed=int(rng.integers(2**40)),
            number=int(rng.integers(5)),
            step=int(rng.choice([0, 1, rng.integers(2**31), 2**32 + 3])),
        )
        found, wanted = on_both(case, rng.choice(["float32", "float64"]))
        for name in ("a", "delta"):
            assert np.array_equal(found[name] == 0, wanted[name] == 0), name
        assert np.array_equal(found["a"] == 0, found["delta"] == 0)


def test_initial_weights_are_numpys_bit_for_bit():
    for rng in configurations():
        sizes = [int(n) for n in rng.integers(1, 12, rng.integers(2, 5))]
        options = {
            "n_models": int(rng.integers(1, 4)),
            "initialiser": rng.choice([name for name in INITIALISERS if name != "zeros"]),
            "dtype": rng.choice(["float32", "float64"]),
            "seed": int(rng.integers(2**40)),
        }
        cuda, numpy = (gpumlp.Network(sizes, backend=name, **options) for name in ("cuda", "numpy"))
        for found, wanted in zip((*cuda.weights, *cuda.biases), (*numpy.weights, *numpy.biases), strict=True):
            assert found.dtype == wanted.dtype
            assert found.tobytes() == wanted.tobytes()


# 100 steps each: 20 epochs of 5 batches
LONG = {
    "plain": {"optimizer": "sgd"},
    "deep": {"sizes": (4, 33, 8, 7, 2), "optimizer": "momentum"},
    "wide, nesterov": {"sizes": (4, 130, 3), "activation": "gelu", "optimizer": "nesterov", "l2": 0.01},
    "adam with dropout": {"activation": "silu", "dropout": 0.3, "optimizer": "adam", "n_models": 3},
    "adamw with clipping": {"activation": "sigmoid", "optimizer": "adamw", "clip_norm": 0.1, "schedule": "cosine"},
    "penalties of whole batches": {
        "optimizer": "adam",
        "learning_rate": 0.002,
        "l2": 0.5,
        "penalty": "batch",
        "weights": "own",
        "n_models": 3,
    },
    "adagrad with penalties": {"optimizer": "adagrad", "l1": 0.01, "l2": 0.02, "n_models": 2},
    "nadam on classes": {
        "sizes": (4, 7, 3),
        "result": "softmax",
        "cost": "categorical_cross_entropy",
        "classes": True,
        "optimizer": "nadam",
        "learning_rate": 0.002,
    },
    "rmsprop, all there is": {
        "sizes": (4, 8, 6, 2),
        "activation": ["softplus", "mish"],
        "dropout": [0.2, 0.4],
        "clip_norm": 1.0,
        "l2": 0.01,
        "optimizer": "rmsprop",
        "learning_rate": [0.001, 0.002, 0.003],
        "n_models": 3,
        "weights": "own",
        "reduction": "sum",
    },
}


def expect_near(found, wanted, dtype, where=lambda x: x):
    tolerance = 1e-11 if dtype == "float64" else 1e-4
    for name, value in wanted.items():
        difference = np.abs(found[name] - where(value)).max()
        assert difference <= tolerance * np.abs(value).max(), (name, difference, np.abs(value).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(LONG))
def test_a_hundred_steps_drift_from_numpys_by_rounding_only(name, dtype):
    found, wanted = (train(b, epochs=20, dtype=dtype, **LONG[name]) for b in ("cuda", "numpy"))
    expect_near(found, wanted, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["adam with dropout", "rmsprop, all there is", "adagrad with penalties"])
def test_a_model_in_a_stack_learns_as_if_alone_but_for_rounding(name, dtype):
    options = {**LONG[name], "n_models": 3, "weights": None, "dtype": dtype, "seed": 5, "epochs": 20}
    rates = options.pop("learning_rate", [0.01, 0.02, 0.03])
    ids = [7, 0, 3]
    stack = train("cuda", learning_rate=rates, model_ids=ids, **options)
    options.pop("n_models")
    for m, number in enumerate(ids):
        alone = train("cuda", learning_rate=rates[m], model_ids=[number], **options)
        for key, value in alone.items():
            if key.startswith("start"):
                assert value[0].tobytes() == stack[key][m].tobytes()
        own = {key: value[None, m] if not key.startswith("history") else value[:, [m]] for key, value in stack.items()}
        expect_near(alone, own, dtype)


@pytest.mark.parametrize("epochs", [1, 3])
def test_order_and_masks_of_a_model_do_not_depend_on_the_stack(epochs):
    """Seen in what a step leaves behind: the gathered rows, and which activations and deltas are 0."""
    rows, masks = [], []
    for ids in ([4], [4, 1, 9], [1, 9, 4]):
        steps, options = [], {"n_rows": 25, "dropout": 0.4, "learning_rate": 0.0, "validation": False}
        train("cuda", (4, 33, 2), epochs=epochs, model_ids=ids, noted=steps, **options)
        for x in {x.data.ptr: x for x in steps[0].kept}.values():
            if x.shape == (len(ids), 5, 4):
                rows.append(x[ids.index(4)].get())
            elif x.shape == (len(ids), 5, 33):
                masks.append(x[ids.index(4)].get() == 0)
    assert len(rows) == 3
    assert len(masks) == 6
    assert 0 < masks[0].mean() < 1
    assert all(np.array_equal(rows[0], x) for x in rows)
    assert all(np.array_equal(masks[0], x) for x in masks)
