"""A batch that is done in parts is the same update: their gradients are added up, and weights are the whole one's."""

import gc
import logging

import numpy as np
import pytest
from comparing import theta
from small import classifier, data, labelled, network

import gpumlp
from gpumlp.backends.numpy_backend import NumpyBackend
from gpumlp.backends.select import why_unavailable
from gpumlp.errors import ConfigurationError, OutOfMemory, out_of_memory

ROUNDING = {"float32": 1e-6, "float64": 1e-13}
N = 23


def fit(
    micro_batch,
    backend,
    dtype="float64",
    batch=10,
    epochs=3,
    weights=None,
    order=None,
    labels=False,
    folds=None,
    **options,
):
    """Train three models and return all that a training gives, as arrays."""
    of_network = {k: options.pop(k) for k in ("dropout", "normalisation", "activation") if k in options}
    make = classifier if labels else network
    net = make(n_models=3, backend=backend, dtype=dtype, **of_network)
    options = {"optimizer": "momentum", "learning_rate": [0.01, 0.02, 0.03], **options}
    trainer = gpumlp.Trainer(net, batch_size=batch, micro_batch=micro_batch, **options)
    X, Y = labelled(N) if labels else data(N)
    history = trainer.fit(X, Y, epochs, sample_weight=weights, order=order, folds=folds)
    values = {name: history[name] for name in history.names}
    return {"theta": theta(net), "steps": np.array(trainer.step_count), **values}


def weights_of(n_models):
    weights = np.random.default_rng(2).uniform(0, 2, (n_models, N))
    weights[:, ::5] = 0
    return weights if n_models > 1 else weights[0]


WAYS = {
    "plain": {},
    "labels": {"labels": True},
    "one order for all": {"shuffle": "shared"},
    "as the rows stand": {"shuffle": False, "batch": "full"},
    "an explicit order": {"order": np.array([np.random.default_rng(e).permutation(N) for e in range(3)])},
    "weights": {"weights": weights_of(1)},
    "weights of each model": {"weights": weights_of(3)},
    "folds of their own": {"folds": gpumlp.Folds((np.arange(20), np.arange(3, 20), np.arange(9, 23)), (0, 2, 1))},
    "a sum": {"reduction": "sum", "learning_rate": 0.001},
    "a sum with weights and penalties": {
        "reduction": "sum",
        "learning_rate": 0.001,
        "weights": weights_of(1),
        "l2": 0.1,
    },
    "penalties of a batch": {"penalty": "batch", "l2": 0.1, "weights": weights_of(3)},
    "clipped": {"clip_norm": 0.05},
    "dropout": {"dropout": 0.4},
    "normalised over units": {"normalisation": "layer"},
    "f' reads z": {"activation": "gelu"},
    "steps launched together": {"steps_per_launch": 2},
    "a schedule": {"schedule": "cosine"},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", WAYS)
def test_a_batch_in_parts_is_the_same_but_for_rounding(way, dtype, backend):
    whole = fit(None, backend, dtype, **WAYS[way])
    for rows in (1, 4, 5):
        parts = fit(rows, backend, dtype, **WAYS[way])
        for name, expected in whole.items():
            scale = np.abs(expected).max()
            assert np.abs(parts[name] - expected).max() <= ROUNDING[dtype] * max(scale, 1), (rows, name)


@pytest.mark.parametrize("given", [None, "auto", 10, 1000])
def test_a_batch_that_fits_is_not_divided(given, backend, caplog):
    with caplog.at_level(logging.INFO, "gpumlp"):
        found = fit(given, backend)
    assert (found["theta"] == fit(None, backend)["theta"]).all()
    assert not [r for r in caplog.records if "parts" in r.message]


def test_a_line_tells_of_the_parts(backend, caplog):
    with caplog.at_level(logging.INFO, "gpumlp"):
        fit(4, backend)
    told = [r.message for r in caplog.records if "parts" in r.message]
    assert told == ["a batch of 10 rows is done in 3 parts of 4, whose gradients are added up"]


# ---------------------------------------------------------------- what does not fit


@pytest.fixture
def little_room(monkeypatch):
    """little_room(rows): let NumPy's backend have no room for activations of more rows than these."""

    def let(rows):
        real = NumpyBackend.empty

        def empty(self, shape, dtype=None, what="an array"):
            if what.startswith(("a of", "z of", "delta of")) and shape[1] > rows:
                raise out_of_memory(what, shape, self.dtype, "this test lets there be none")
            return real(self, shape, dtype, what)

        monkeypatch.setattr(NumpyBackend, "empty", empty)

    return let


def test_a_batch_that_does_not_fit_is_halved_until_it_does(little_room, caplog):
    whole = fit(None, "numpy")
    little_room(3)
    with caplog.at_level(logging.INFO, "gpumlp"):
        parts = fit("auto", "numpy")
    told = [r.message for r in caplog.records if "parts" in r.message]
    assert told == [
        "a batch of 10 rows is done in 4 parts of 3, whose gradients are added up: it does not fit into memory at once"
    ]
    assert np.allclose(parts["theta"], whole["theta"], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("given", "room", "options"), [
    (None, 3, {}),
    ("auto", 0, {}),
    (5, 3, {}),
    ("auto", 3, {"normalisation": "batch"}),
])  # fmt: skip
def test_what_may_not_be_divided_further_is_out_of_memory(given, room, options, little_room):
    little_room(room)
    with pytest.raises(OutOfMemory, match="no room for"):
        fit(given, "numpy", **options)


def test_layers_normalised_over_a_batch_refuse_parts_by_name():
    net = network((4, 6, 5, 2), normalisation=["layer", "batch"])
    with pytest.raises(ConfigurationError, match=r'micro_batch=4 with normalisation="batch" in layer 1'):
        gpumlp.Trainer(net, micro_batch=4)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "half"])
def test_what_is_no_number_of_rows_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="micro_batch="):
        gpumlp.Trainer(network(), micro_batch=wrong)


def test_on_a_device_with_little_memory_a_batch_is_divided_and_trained(caplog):
    reason = why_unavailable("cuda")
    if reason:
        pytest.skip(f"backend cuda {reason}")
    cupy = pytest.importorskip("cupy")
    pool, rng = cupy.cuda.MemoryPool(), np.random.default_rng(0)  # its own, in which nothing else has left room
    X, y = rng.standard_normal((4000, 20), np.float32), rng.integers(0, 3, 4000)

    def train(micro_batch):
        net = gpumlp.Network((20, 300, 3), backend="cuda")
        trainer = gpumlp.Trainer(net, "sgd", 0.1, batch_size="full", micro_batch=micro_batch)
        return trainer.fit(X, y, 3, validation=(X[:100], y[:100]))["cost"], theta(net)

    with cupy.cuda.using_allocator(pool.malloc):
        cost, expected = train(None)
        gc.collect()
        pool.free_all_blocks()
        needed = gpumlp.plan_memory(gpumlp.Network((20, 300, 3), backend="cuda"), "full", n_rows=4000).parts
        by_rows = needed["activations"] + needed["deltas"]
        pool.set_limit(size=pool.total_bytes() + sum(needed.values()) - needed["cuBLAS"] - by_rows // 2)
        with pytest.raises(OutOfMemory, match="no room for"):
            train(None)
        gc.collect()
        with caplog.at_level(logging.INFO, "gpumlp"):
            divided_cost, found = train("auto")
    assert any("a batch of 4000 rows is done in" in r.message for r in caplog.records)
    assert np.allclose(divided_cost, cost, rtol=1e-6)
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-6)
