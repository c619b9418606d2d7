"""Stream capture and graphs."""

import devices
import emulated_gpu
import numpy as np
import pytest
from gpu_code import BLOCK_SUM, CUDARuntimeError, cp, module, new_stream, pinned, runtime


@pytest.mark.parametrize("mode", ["eager", "lazy"])
def test_graph(mode):
    emulated_gpu.set_mode(mode)
    s = new_stream()
    k = module(BLOCK_SUM, ["block_sum<float, 64>"]).get_function("block_sum<float, 64>")
    x, y, total = cp.zeros(12, "f"), cp.empty(12, "f"), cp.zeros(1, "f")
    src, square = pinned(12), cp.ones((2, 2))
    cp.cuda.Device().synchronize()  # a non-blocking stream does not wait for the zeros
    with s:
        cp.add(x, 1, out=y)  # compiles
        s.synchronize()
        y[...] = 0
        s.begin_capture()
        # CuPy's own set() refuses to be captured
        runtime.memcpyAsync(x.data.ptr, src.ctypes.data, 48, runtime.memcpyHostToDevice, s.ptr)
        cp.add(x, 1, out=y)
        k((1,), (64,), (y, total, 12, np.float32(1)), shared_mem=1024)
        with pytest.raises(NotImplementedError):  # so does its cuBLAS
            cp.matmul(square, square)
        g = s.end_capture()
        s.synchronize()
        assert (y.get() == 0).all()
        for v, expected in ((1, 24), (2, 60)):
            src[:] = v
            g.launch(s)
            s.synchronize()
            assert (y.get() == v + 1).all()
            assert total.get()[0] == expected


def test_graph_over_two_streams(lazy):
    a, b = new_stream(), new_stream()
    x, y, z = cp.ones(5, "f"), cp.ones(5, "f"), cp.zeros(5, "f")
    cp.multiply(x, 2, out=x)  # compile
    cp.add(x, y, out=z)
    x[...] = 1
    cp.cuda.Device().synchronize()
    a.begin_capture()
    with a:
        cp.multiply(x, 2, out=x)
        fork = a.record()
    with b:
        b.wait_event(fork)
        cp.multiply(y, 2, out=y)
        join = b.record()
    a.wait_event(join)
    with a:
        cp.add(x, y, out=z)
    g = a.end_capture()
    g.launch(a)
    a.synchronize()
    assert (z.get() == 4).all()


ILLEGAL = {
    "malloc": lambda s: runtime.malloc(16),
    "host_alloc": lambda s: runtime.hostAlloc(16, 0),
    "stream": lambda s: s.synchronize(),
    "device": lambda s: cp.cuda.Device().synchronize(),
    "memcpy": lambda s: runtime.memcpy(np.zeros(4).ctypes.data, np.ones(4).ctypes.data, 32, runtime.memcpyHostToHost),
}


@pytest.mark.parametrize("illegal", ILLEGAL)
def test_illegal_in_capture(illegal):
    s = new_stream()
    s.begin_capture(runtime.streamCaptureModeGlobal)
    with pytest.raises(CUDARuntimeError, match="StreamCaptureUnsupported"):
        ILLEGAL[illegal](s)
    with pytest.raises(CUDARuntimeError, match="StreamCaptureInvalidated"):
        s.end_capture()
    s.synchronize()


def test_a_query_is_illegal_in_capture():
    s = new_stream()
    s.begin_capture()
    assert runtime.streamQuery(s.ptr) == 900  # cudaErrorStreamCaptureUnsupported
    with pytest.raises(CUDARuntimeError, match="StreamCaptureInvalidated"):
        s.end_capture()


def test_unjoined_capture():
    a, b = new_stream(), new_stream()
    x = cp.zeros(4, "f")
    x += 1
    a.begin_capture()
    b.wait_event(a.record())
    with b:
        x += 1
    with pytest.raises(CUDARuntimeError, match="StreamCaptureUnjoined"):
        a.end_capture()


def captured(work, mode=None):
    s = new_stream()
    with s:
        work(s)  # compiles
        s.synchronize()
        s.begin_capture(runtime.streamCaptureModeRelaxed if mode is None else mode)
        work(s)
        return s.end_capture()


def test_the_dot_text_lists_every_node():
    x, src = cp.zeros(12, "f"), pinned(12)

    def work(s):
        runtime.memcpyAsync(x.data.ptr, src.ctypes.data, 48, runtime.memcpyHostToDevice, s.ptr)
        cp.add(x, 1, out=x)
        cp.multiply(x, 2, out=x)
        runtime.memsetAsync(x.data.ptr, 0, 16, s.ptr)
        s.launch_host_func(id, None)

    graph = captured(work)
    assert devices.node_kinds(graph) == {"KERNEL": 2, "MEMCPY": 1, "MEMSET": 1, "HOST": 1}
    plain, verbose = graph.debug_dot_str(), graph.debug_dot_str(1)
    for text in (plain, verbose):
        assert text.startswith("digraph dot {")
        assert "cupy_multiply" in text
        edges = [line for line in text.splitlines() if '" -> "graph_1_node_' in line]
        assert len(edges) == 4


def test_the_dot_text_shows_memory_that_a_graph_allocates():
    """CuPy's own pools refuse to allocate in a capture; the runtime makes it a node."""
    s = new_stream()
    s.begin_capture()
    with s, emulated_gpu.counting() as counted:
        pointer = runtime.mallocAsync(1024, s.ptr)
        runtime.memsetAsync(pointer, 0, 1024, s.ptr)
        runtime.freeAsync(pointer, s.ptr)
    assert devices.node_kinds(s.end_capture()) == {"MEM_ALLOC": 1, "MEMSET": 1, "MEM_FREE": 1}
    assert counted["memory"]["captured_cudaMallocAsync"] == 1


DUMPED_BY_THE_DRIVER = r"""digraph dot {
subgraph cluster_1 {
label="graph_1" graph[style="dashed"];
"graph_1_node_0"[style="bold" shape="record" label="{KERNEL
| {ID | 0 (topoId: 2) | _Z4stepPf\<\<\<1,128,0\>\>\>}
| {{node handle | func handle} | {0x000055E7277A5C20 | 0x000055E7270A5A90}}
}"];
"graph_1_node_1"[style="solid" shape="record" label="{
MEMCPY
| {{ID | node handle} | {1 (topoId: 1) | 0x000055E7277A6AC0}}
| {kind | DtoD (DEVICE to DEVICE)}
}"];
"graph_1_node_0" -> "graph_1_node_1" [headlabel=0];
}
}
"""


def test_the_dot_text_of_the_real_driver_is_counted_alike():
    class Graph:
        def debug_dot_str(self, flags):
            assert flags == runtime.cudaGraphDebugDotFlagsVerbose
            return DUMPED_BY_THE_DRIVER

    assert devices.node_kinds(Graph()) == {"KERNEL": 1, "MEMCPY": 1}
