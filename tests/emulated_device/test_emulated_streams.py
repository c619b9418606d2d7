"""Streams, events and copies; in lazy mode work waits in its stream until something needs it."""

import emulated_gpu
import numpy as np
import pytest
from gpu_code import SLOW_FILL, cp, module, new_stream, pinned, run

ONE = (1,), (1,)


@pytest.fixture
def fill():
    return module(SLOW_FILL).get_function("f")


@pytest.mark.parametrize("mode", ["eager", "lazy"])
def test_streams_events_pinned(mode, fill):
    emulated_gpu.set_mode(mode)
    a, b = new_stream(), new_stream()
    x, src, dst = cp.empty(100, "f"), pinned(100), pinned(100)
    src[:] = 3
    start, done, end = cp.cuda.Event(), cp.cuda.Event(), cp.cuda.Event()
    start.record(a)
    with a:
        fill(*ONE, (x, np.float32(7), np.int32(100)))
        done.record(a)
    with b, emulated_gpu.counting() as counted:
        b.wait_event(done)
        y = x + 1
        x.set(src, stream=b)
        y.get(stream=b, out=dst, blocking=False)
    end.record(b)
    end.synchronize()
    assert done.done
    assert (dst == 8).all()
    assert (x.get() == 3).all()
    assert cp.cuda.get_elapsed_time(start, end) > 0
    assert counted["memcpy_count"]["HostToDevice"] == counted["memcpy_count"]["DeviceToHost"] == 1


@pytest.mark.parametrize("waits", [True, False], ids=["with", "without"])
def test_a_missing_stream_dependency_gives_wrong_data(lazy, fill, waits):
    x = cp.zeros(10, "f")
    cp.cuda.Device().synchronize()
    a, b = new_stream(), new_stream()
    with a:
        fill(*ONE, (x, np.float32(7), np.int32(10)))
    with b:
        if waits:
            b.wait_event(a.record())
        y = x + 1
        assert (y.get() == (8 if waits else 1)).all()
    a.synchronize()
    assert (x.get() == 7).all()


@pytest.mark.parametrize("waits", [True, False], ids=["with", "without"])
def test_a_result_read_before_its_stream_is_done(lazy, fill, waits):
    x, result = cp.zeros(10, "f"), pinned(10)
    result[:] = 0
    cp.cuda.Device().synchronize()
    a = new_stream()
    with a:
        fill(*ONE, (x, np.float32(7), np.int32(10)))
        x.get(stream=a, out=result, blocking=False)
    if waits:
        a.synchronize()
    assert (result == (7 if waits else 0)).all()


def test_a_pinned_buffer_reused_too_early_gives_wrong_data(lazy):
    s = new_stream()
    x, buffer = cp.zeros(10, "f"), pinned(10)
    cp.cuda.Device().synchronize()
    buffer[:] = 1
    x.set(buffer, stream=s)
    buffer[:] = 2  # without waiting for s
    s.synchronize()
    assert (x.get() == 2).all()
    pageable = np.full(10, 1, "f")
    x.set(pageable, stream=s)
    pageable[:] = 2  # allowed: CUDA has staged it
    s.synchronize()
    assert (x.get() == 1).all()


def test_the_default_stream_orders_blocking_streams(lazy, fill):
    s = cp.cuda.Stream()
    x = cp.zeros(10, "f")
    with s:
        fill(*ONE, (x, np.float32(7), np.int32(10)))
    y = x + 1  # default stream: waits for s
    with s:
        fill(*ONE, (x, np.float32(9), np.int32(10)))
    s.synchronize()  # and s waits for the default stream
    assert (y.get() == 8).all()
    assert (x.get() == 9).all()


def test_host_callback():
    s, seen = cp.cuda.Stream(), []
    s.launch_host_func(seen.append, 5)
    s.synchronize()
    assert seen == [5]


@pytest.mark.parametrize("mode", ["eager", "lazy"])
def test_two_devices(mode):
    done = run(
        """
        import emulated_gpu; emulated_gpu.install()
        import cupy as cp
        assert cp.cuda.runtime.getDeviceCount() == 2
        with cp.cuda.Device(1):
            x = cp.arange(5)
            assert x.device.id == 1
        with cp.cuda.Device(0):
            y = cp.asarray(x)
            assert y.device.id == 0 and y.sum() == 10
        """,
        EMULATED_GPU_DEVICES="2",
        EMULATED_GPU_MODE=mode,
    )
    assert done.returncode == 0, done.stderr


def test_an_error_that_nothing_waited_for_is_told_at_the_end():
    done = run(
        """
        import emulated_gpu; emulated_gpu.install()
        import cupy as cp
        k = cp.RawKernel('extern "C" __global__ void far(float *x) { x[1 << 20] = 1; }', 'far')
        k((1,), (1,), (cp.zeros(1, 'f'),))
        print("launched")
        """,
        EMULATED_GPU_MODE="lazy",
    )
    assert done.stdout == "launched\n"
    assert "kernel 'far'" in done.stderr
    assert "nothing waited for the work that ended in this error: an illegal memory access" in done.stderr
