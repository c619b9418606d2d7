"""After the first epoch a training allocates next to nothing on the host, whatever its batch and its width.

What is allocated on a device is counted in tests/backends/cuda.
"""

import tracemalloc

import numpy as np
import pytest

import gpumlp

MEGABYTE = 2**20
CASES = [
    pytest.param((784, 1024, 1024, 10), 512, 256, {}, id="wide"),
    pytest.param((100, 64, 10), 20000, "full", {}, id="full batch"),
    pytest.param((100, 64, 10), 20000, 32, {}, id="many steps"),
    pytest.param((100, 512, 10), 4000, 1000, {"dropout": 0.5}, id="dropout"),
]


@pytest.fixture
def cpu_backend(backend):
    """The backends whose buffers are on the host, in turn."""
    if backend == "cuda":
        pytest.skip("the large buffers of a device are not on the host")
    return backend


@pytest.fixture
def two_threads(monkeypatch):
    """Each thread has temporaries of its own."""
    monkeypatch.setenv("GPUMLP_NUM_THREADS", "2")


class Watch(gpumlp.Monitor):
    """Measures what is allocated beyond what is there after the first epoch."""

    def __init__(self):
        self.steps = []

    def epoch_began(self, epoch):
        if epoch == 2:
            tracemalloc.reset_peak()
            self.base = tracemalloc.get_traced_memory()[0]

    def epoch_ended(self, report):
        current, peak = tracemalloc.get_traced_memory()
        if report.epoch > 1:
            self.grown, self.peak = current - self.base, peak - self.base


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("sizes", "n", "batch", "options"), CASES)
def test_a_training_allocates_less_than_a_megabyte_after_its_first_epoch(
    sizes, n, batch, options, dtype, two_threads, cpu_backend
):
    if dtype == "float64" and len(sizes) == 4:
        pytest.skip("the wide network is measured in float32")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, sizes[0]), dtype=np.float32)
    y = rng.integers(0, sizes[-1], n)
    net = gpumlp.Network(sizes, dtype=dtype, backend=cpu_backend, **options)
    trainer = gpumlp.Trainer(net, batch_size=batch, clip_norm=1.0, l2=1e-4, schedule="inverse_scaling")
    watch = Watch()
    tracemalloc.start()
    try:
        trainer.fit(X, y, 3, monitors=[watch])
    finally:
        tracemalloc.stop()
    assert watch.peak < MEGABYTE
    assert watch.grown < 64 * 1024


@pytest.mark.parametrize("activation", ["relu", "gelu", "elu", "mish", "hard_tanh"])
def test_no_activation_allocates_with_the_size_of_its_layer(activation, two_threads, cpu_backend):
    net = gpumlp.Network((20, 400, 3), activation, n_models=2, backend=cpu_backend)
    X, y = np.ones((4000, 20), np.float32), np.zeros(4000, int)
    watch = Watch()
    tracemalloc.start()
    try:
        gpumlp.Trainer(net, "lion", batch_size=2000).fit(X, y, 2, monitors=[watch])
    finally:
        tracemalloc.stop()
    assert watch.peak < MEGABYTE


def test_steps_leave_nothing_behind(backend):
    """From the second step on, what is there after a step was there before it."""

    class Steps(gpumlp.Monitor):
        def __init__(self):
            self.there = np.zeros(40, np.int64)  # so that the measure itself allocates nothing

        def step_ended(self, step):
            self.there[step - 1] = tracemalloc.get_traced_memory()[0]

    steps = Steps()
    X, y = np.ones((400, 50), np.float32), np.zeros(400, int)
    tracemalloc.start()
    try:
        gpumlp.Trainer(gpumlp.Network((50, 300, 3), n_models=2, backend=backend), batch_size=10).fit(
            X, y, 1, monitors=[steps]
        )
    finally:
        tracemalloc.stop()
    assert steps.there[-1] - steps.there[4] < 4096
