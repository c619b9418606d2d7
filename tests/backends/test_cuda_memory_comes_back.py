"""Device memory comes back when the last one lets go of it: Python's collector does not know that a device is full."""

import gc

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.select import why_unavailable

if why_unavailable("cuda"):
    pytest.skip(f"backend cuda {why_unavailable('cuda')}", allow_module_level=True)

X = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
Y = np.arange(40) % 3


@pytest.fixture
def no_collection():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def used_after(work, times=4):
    """Return how much device memory is in use after each call."""
    import cupy

    used = []
    for _ in range(times):
        work()
        used.append(cupy.get_default_memory_pool().used_bytes())
    return used


def test_what_a_training_took_comes_back_at_its_end(no_collection):
    net = gpumlp.Network((5, 7, 3), dropout=0.2, backend="cuda")
    trainer = gpumlp.Trainer(net, batch_size=8, clip_norm=1.0, steps_per_launch=2)
    stopping = gpumlp.EarlyStopping(patience=9)
    used = used_after(lambda: trainer.fit(X, Y, 3, validation=(X, Y), monitors=[stopping]))
    assert used[1:] == used[:-1]


def test_what_a_training_took_comes_back_without_graphs(no_collection, monkeypatch):
    monkeypatch.setenv("GPUMLP_CUDA_GRAPHS", "off")
    trainer = gpumlp.Trainer(gpumlp.Network((5, 7, 3), backend="cuda"), batch_size=8)
    used = used_after(lambda: trainer.fit(X, Y, 2))
    assert used[1:] == used[:-1]


def test_what_pools_took_comes_back(no_collection):
    trainer = gpumlp.Trainer(gpumlp.Network((5, 7, 3), backend="cuda"), batch_size=8)
    used = used_after(lambda: trainer.fit(X, Y, 2, pool=16))
    assert used[1:] == used[:-1]


@pytest.mark.parametrize("method", ["evaluate", "backpropagate"])
def test_what_an_evaluation_took_comes_back(method, no_collection):
    net = gpumlp.Network((5, 7, 3), backend="cuda")
    used = used_after(lambda: getattr(net, method)(X, Y))
    assert used[1:] == used[:-1]


def test_a_network_leaves_nothing_behind(no_collection):
    def work():
        net = gpumlp.Network((5, 7, 3), n_models=2, backend="cuda")
        gpumlp.Trainer(net, batch_size=8).fit(X, Y, 2)
        net.predict(X)

    used = used_after(work)
    assert used[1:] == used[:-1]
