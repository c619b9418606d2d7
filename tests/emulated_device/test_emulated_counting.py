"""What the statistics tell: enough to say that a step of training allocates nothing and never waits."""

import emulated_gpu
import numpy as np
import pytest
from gpu_code import cp, kernel, new_stream, pinned, rng, runtime

KERNEL = "x[threadIdx.x] += 1;", "float *x", "my_kernel"


def test_launches_products_and_copies():
    x, k = cp.asarray(rng(64, 32)), kernel(*KERNEL)
    x @ x.T
    with emulated_gpu.counting() as counted:
        y = x @ x.T
        k((1,), (32,), (y,))
        k((1,), (32,), (y,))
        y.get()
    assert counted["launches"] == {"my_kernel": 2}
    assert [name for name in counted["gemm"] if "m=64 n=64 k=32" in name and "float32" in name]
    assert counted["memcpy_count"] == {"DeviceToHost": 1}
    assert counted["memcpy_bytes"] == {"DeviceToHost": 64 * 64 * 4}


def test_reset_and_restore():
    kernel(*KERNEL)((1,), (4,), (cp.zeros(4, "f"),))
    before = emulated_gpu.snapshot()
    assert before["launches"]["my_kernel"] >= 1
    emulated_gpu.reset()
    assert not emulated_gpu.snapshot()
    kernel(*KERNEL)((1,), (4,), (cp.zeros(4, "f"),))
    emulated_gpu.restore(before)
    assert emulated_gpu.snapshot() == before
    assert emulated_gpu.snapshot()["no such group"]["nor such a key"] == 0


ALLOCATIONS = {
    "cudaMalloc": lambda: runtime.free(runtime.malloc(64)),
    "cudaMallocAsync": lambda: runtime.freeAsync(runtime.mallocAsync(64, 0), 0),
    "cudaMallocManaged": lambda: runtime.free(runtime.mallocManaged(64)),
    "cudaHostAlloc": lambda: runtime.freeHost(runtime.hostAlloc(64, 0)),
}


@pytest.mark.parametrize("function", ALLOCATIONS)
def test_every_allocation_counts(function):
    with emulated_gpu.counting() as counted:
        ALLOCATIONS[function]()
    assert counted["memory"][function] == 1
    assert counted["memory"]["allocations"] == (function != "cudaHostAlloc")
    assert counted["synchronizations"]["free"] == (function != "cudaMallocAsync")


def test_the_pools_of_cupy_count_too():
    with emulated_gpu.counting() as counted:
        cp.cuda.MemoryPool().malloc(512)
        cp.cuda.MemoryAsyncPool().malloc(512)
        cp.cuda.PinnedMemoryPool().malloc(512)
    memory = counted["memory"]
    assert (memory["cudaMalloc"], memory["cudaMallocAsync"], memory["cudaHostAlloc"]) == (1, 1, 1)
    assert (memory["allocations"], memory["bytes_allocated"]) == (2, 1024)


def waits_of(x, stream):
    event, host, own = cp.cuda.Event(), np.zeros(x.size, "f"), pinned(x.size)
    event.record(stream)
    copy = x.copy()

    def memcpy(function, to, origin, *rest):
        function(getattr(to, "ctypes", to).data, getattr(origin, "ctypes", origin).data, x.nbytes, *rest)

    up, down = runtime.memcpyHostToDevice, runtime.memcpyDeviceToHost
    x_, own_, host_, at = x.data.ptr, own.ctypes.data, host.ctypes.data, (x.nbytes,)
    return {
        "stream": (lambda: stream.synchronize(), {"stream": 1}),
        "default stream": (lambda: cp.cuda.Stream.null.synchronize(), {"stream": 1}),
        "event": (lambda: event.synchronize(), {"event": 1}),
        "device": (lambda: cp.cuda.Device().synchronize(), {"device": 1}),
        "memcpy up": (lambda: runtime.memcpy(x_, own_, *at, up), {"memcpy": 1}),
        "memcpy down": (lambda: runtime.memcpy(own_, x_, *at, down), {"memcpy": 1}),
        "asynchronous, pinned up": (lambda: runtime.memcpyAsync(x_, own_, *at, up, stream.ptr), {}),
        "asynchronous, pinned down": (lambda: runtime.memcpyAsync(own_, x_, *at, down, stream.ptr), {}),
        "asynchronous, pageable up": (
            lambda: runtime.memcpyAsync(x_, host_, *at, up, stream.ptr),
            {"memcpy_staged": 1},
        ),
        "asynchronous, pageable down": (lambda: runtime.memcpyAsync(host_, x_, *at, down, stream.ptr), {"memcpy": 1}),
        "on the device": (lambda: cp.copyto(copy, x), {}),
        "get": (lambda: x.get(), {"stream": 1, "memcpy": 1}),
        "item": (lambda: x[0].item(), {"stream": 1, "memcpy": 1}),
        "float": (lambda: float(x[0]), {"stream": 1, "memcpy": 1}),
        "truth": (lambda: bool(x[0] == 0), {"stream": 1, "memcpy": 1}),
    }


WAITS = list(waits_of(cp.zeros(4, "f"), new_stream()))


@pytest.mark.parametrize("mode", ["eager", "lazy"])
@pytest.mark.parametrize("name", WAITS)
def test_every_wait_of_the_host_counts(name, mode):
    emulated_gpu.set_mode(mode)
    x, stream = cp.zeros(4, "f"), new_stream()
    call, expected = waits_of(x, stream)[name]
    call()
    with emulated_gpu.counting() as counted:
        call()
    assert counted["synchronizations"] == expected


def test_asking_counts():
    stream, event = new_stream(), cp.cuda.Event()
    event.record(stream)
    with emulated_gpu.counting() as counted:
        assert stream.done
        assert event.done
    assert counted["queries"] == {"stream": 1, "event": 1}
    assert not counted["synchronizations"]


def step(stream, x, y, source):
    runtime.memcpyAsync(x.data.ptr, source.ctypes.data, x.nbytes, runtime.memcpyHostToDevice, stream.ptr)
    cp.add(x, 1, out=y)
    kernel(*KERNEL)((1,), (12,), (y,))
    runtime.memsetAsync(x.data.ptr, 0, 16, stream.ptr)


@pytest.fixture
def prepared():
    stream, x, y, source = new_stream(), cp.zeros(12, "f"), cp.zeros(12, "f"), pinned(12)
    source[:] = 3
    cp.cuda.Device().synchronize()
    with stream:
        step(stream, x, y, source)
        stream.synchronize()
        yield stream, x, y, source


def test_a_launch_of_a_graph_is_one_launch_and_nothing_else(prepared):
    stream, _, y, _ = prepared
    stream.begin_capture()
    with emulated_gpu.counting() as capturing:
        step(*prepared)
    nodes = {"memcpy HostToDevice": 1, "cupy_add__float32_float_float32": 1, "my_kernel": 1, "memset": 1}
    assert capturing == {"captured": nodes}  # nothing ran, nothing was allocated, nothing waited
    graph = stream.end_capture()
    for times in (1, 5):
        with emulated_gpu.counting() as counted:
            for _ in range(times):
                graph.launch(stream)
        assert counted == {
            "graphs": {"launches": times},
            "graph_nodes": {name: n * times for name, n in nodes.items()},
        }
        stream.synchronize()
        assert (y.get() == 5).all()


SPOILS = {
    "an allocation": (lambda x, stream: runtime.malloc(16), "memory"),
    "an asynchronous allocation": (lambda x, stream: runtime.mallocAsync(16, stream.ptr), "memory"),
    "a wait": (lambda x, stream: stream.synchronize(), "synchronizations"),
    "a value": (lambda x, stream: float(x[0]), "synchronizations"),
    "a copy": (lambda x, stream: x.set(np.zeros(12, "f")), "memcpy_count"),
    "a kernel": (lambda x, stream: cp.add(x, 1, out=x), "launches"),
}


@pytest.mark.parametrize("what", SPOILS)
def test_whatever_else_happens_between_two_launches_shows(what, prepared):
    spoil, group = SPOILS[what]
    with emulated_gpu.counting() as counted:
        spoil(prepared[1], prepared[0])
    assert counted[group]
