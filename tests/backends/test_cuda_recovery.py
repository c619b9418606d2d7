"""What is left of the device, which all networks share, when a step ends before its time."""

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.select import get_backend, why_unavailable
from gpumlp.errors import BackendUnavailable

if why_unavailable("cuda"):
    pytest.skip(f"backend cuda {why_unavailable('cuda')}", allow_module_level=True)

X = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
Y = np.arange(20) % 3


def fit(net):
    gpumlp.Trainer(net, batch_size=5).fit(X, Y, 2)
    return [W.copy() for W in net.weights]


@pytest.mark.parametrize("when", ["begin_capture", "end_capture"])
def test_ctrl_c_beside_a_recording_leaves_a_stream_that_computes(when, monkeypatch):
    wanted = fit(gpumlp.Network((4, 6, 3), backend="cuda"))
    net = gpumlp.Network((4, 6, 3), backend="cuda")
    stream = net.backend._device.stream
    does = getattr(stream, when)

    def and_then_interrupted():
        does()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stream, when, and_then_interrupted, raising=False)
        with pytest.raises(KeyboardInterrupt):
            fit(net)
    assert not stream.is_capturing()
    net.reset()
    for found, expected in zip(fit(net), wanted, strict=True):
        assert np.array_equal(found, expected)


def test_ctrl_c_within_a_recording_is_told_as_such():
    b = get_backend("cuda")
    x = b.asarray(np.zeros((1, 3), np.float32))

    def step():
        b.fill(x, 1.0)
        if b._device.stream.is_capturing():
            b._device.cupy.cuda.Stream.null.synchronize()
            raise KeyboardInterrupt

    with b.session():
        captured = b.capture(step)
        captured()
        with pytest.raises(KeyboardInterrupt):
            captured()
        assert not b._device.stream.is_capturing()
    assert b.to_host(x).tolist() == [[1, 1, 1]]


def test_what_cublas_refuses_while_a_step_is_recorded_is_told_with_what_to_do(monkeypatch):
    b = get_backend("cuda")
    a, W, z = (b.asarray(np.ones(shape, np.float32)) for shape in ((1, 2, 3), (1, 4, 3), (1, 2, 4)))
    cublas = b._gemm._cublas

    def refusing(*arguments):
        raise cublas.cuBLASError(15)

    with b.session():
        captured = b.capture(lambda: b.linear(a, W, z))
        captured()
        with monkeypatch.context() as patch:
            patch.setattr(cublas, "gemm_strided_batched_ex", refusing)
            with pytest.raises(BackendUnavailable, match=r"NOT_SUPPORTED.*GPUMLP_CUDA_GRAPHS=off"):
                captured()
        captured()
    assert (b.to_host(z) == 3).all()


def test_the_first_error_of_a_recording_is_told_not_what_followed_from_it():
    b = get_backend("cuda")
    with b.session():
        captured = b.capture(b.synchronize)
        captured()
        with pytest.raises(BackendUnavailable, match="cudaErrorStreamCaptureUnsupported"):
            captured()


def test_tickets_are_zero_though_ctrl_c_came_before_they_were_set():
    b = get_backend("cuda")

    class Interrupted:
        def fill(self, value):
            raise KeyboardInterrupt

    b._arena.empty = lambda *arguments: Interrupted()
    with pytest.raises(KeyboardInterrupt):
        b._arena.scratch("test tickets", 5, np.uint32, zeroed=True)
    del b._arena.empty
    with b.session():
        tickets = b._arena.scratch("test tickets", 5, np.uint32, zeroed=True)
    assert b.to_host(tickets).tolist() == [0] * 5
