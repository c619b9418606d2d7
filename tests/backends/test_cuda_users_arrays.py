"""Arrays that belong to the user: in any memory, of any real dtype, on any device, written on any stream."""

import os
import subprocess
import sys
from pathlib import Path

import devices
import numpy as np
import pytest

import gpumlp
from gpumlp.backends.select import why_unavailable

if why_unavailable("cuda"):
    pytest.skip(f"backend cuda {why_unavailable('cuda')}", allow_module_level=True)

TESTS = Path(__file__).parents[1]
X = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
Y = np.arange(40) % 3


@pytest.fixture
def lazy():
    """On the emulated device, work that waits as long as it may."""
    if devices.in_use().kind != "emulated":
        yield
        return
    import emulated_gpu

    mode = emulated_gpu.mode()
    emulated_gpu.set_mode("lazy")
    yield
    emulated_gpu.set_mode(mode)


def test_pinned_memory_may_change_once_its_values_were_handed_over(lazy):
    import cupyx

    net = gpumlp.Network((5, 7, 3), backend="cuda")
    W = cupyx.empty_pinned((7, 5), np.float32)
    W[:] = 2
    net.set_weights(0, W)
    W[:] = 9
    assert (net.weights[0] == 2).all()


def test_a_prediction_within_a_training_may_be_asked_for_on_another_stream(lazy):
    import cupy

    other = gpumlp.Network((5, 200, 200, 3), backend="cuda")
    wanted, found = other.predict(X), []

    class Watcher(gpumlp.Monitor):
        def step_ended(self, step):
            with cupy.cuda.Stream(non_blocking=True):
                found.append(other.predict(X))

    trainer = gpumlp.Trainer(gpumlp.Network((5, 7, 3), backend="cuda"), batch_size=8)
    trainer.fit(X, Y, 1, monitors=[Watcher()])
    assert len(found) == 5
    assert all(np.array_equal(outputs, wanted) for outputs in found)


@pytest.mark.parametrize("dtype", ["float16", "longdouble", ">f4", ">i2", "bool"])
def test_inputs_of_every_real_dtype_are_taken_as_on_numpy(dtype):
    given = (10 * X).astype(dtype)
    learned = []
    for backend in ("numpy", "cuda"):
        net = gpumlp.Network((5, 7, 3), dtype="float64", backend=backend)
        gpumlp.Trainer(net, batch_size=8).fit(given, Y, 2, sample_weight=np.ones(40, dtype))
        learned.append((net.weights[0].copy(), net.predict(given), net.evaluate(given, Y)["cost"]))
    for expected, found in zip(*learned, strict=True):
        assert np.allclose(expected, found, rtol=1e-9, atol=1e-12)


ON_THE_SECOND_DEVICE = """
import warnings

import devices

devices.in_use()
import cupy
import numpy as np

import gpumlp

warnings.simplefilter("error")  # CuPy warns where the current device reads the memory of another, if it can at all
rng = np.random.default_rng(0)
net = gpumlp.Network((5, 7, 3), backend="cuda", device="cuda:1")
with cupy.cuda.Device(1):
    X, Y, weights = cupy.asarray(rng.standard_normal((20, 5))), cupy.arange(20) % 3, cupy.ones(20)
assert cupy.cuda.Device().id == 0
gpumlp.Trainer(net, batch_size=8).fit(X, Y, 2, validation=(X, Y), sample_weight=weights)
assert net.predict(X).device.id == 1
net.evaluate(X, Y, weights)
net.backpropagate(X, Y)
net.forward(X)
print("right")
"""


@pytest.mark.skipif(devices.in_use().kind != "emulated", reason="needs two devices, as many as the emulated one can be")
def test_arrays_are_checked_on_the_device_where_they_lie():
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    settings = {"PYTHONPATH": path, "GPUMLP_TEST_DEVICE": "emulated", "EMULATED_GPU_DEVICES": "2"}
    command = [sys.executable, "-c", ON_THE_SECOND_DEVICE]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    assert done.stdout == "right\n", done.stderr
