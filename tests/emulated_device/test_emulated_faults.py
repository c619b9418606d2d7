"""Faults that a GPU hides: each is planted here, beside the code without it, and must be seen."""

import emulated_gpu
import numpy as np
import pytest
from gpu_code import CUDARuntimeError, cp, fault, kernel, module, raw, run, runtime

NEIGHBOUR = """
  __shared__ float s[128];
  s[threadIdx.x] = x[threadIdx.x];
  %s
  y[threadIdx.x] = threadIdx.x ? s[threadIdx.x - 1] : 0.0f;
"""


# ---------------------------------------------------------------- order


@pytest.mark.parametrize("barrier", ["__syncthreads();", ""], ids=["with", "without"])
def test_a_missing_syncthreads_gives_wrong_data(barrier):
    x, y = cp.arange(128, dtype="f"), cp.zeros(128, "f")
    kernel(NEIGHBOUR % barrier, "const float *x, float *y")((1,), (128,), (x, y))
    right = (y.get() == np.r_[0, np.arange(127)]).all()
    assert right == bool(barrier)


@pytest.mark.parametrize("barrier", ["__syncwarp();", ""], ids=["with", "without"])
def test_a_missing_syncwarp_gives_wrong_data(barrier):
    k = kernel(
        f"""__shared__ volatile float s[64];
      int t = threadIdx.x;
      s[t] = t; s[t + 32] = 0;
      __syncwarp();
      for (int d = 16; d; d /= 2) {{ float v = s[t + d]; {barrier} s[t] = s[t] + v; {barrier} }}
      if (!t) *x = s[0];"""
    )
    x = cp.zeros(1, "f")
    k((1,), (32,), (x,))
    assert (x.get()[0] == 496) == bool(barrier)


def test_blocks_and_threads_run_in_a_shuffled_order_that_stays_the_same():
    k = kernel("int i = blockIdx.x * blockDim.x + threadIdx.x; order[atomicAdd(n, 1)] = i;", "int *order, int *n")
    orders = []
    for _ in range(2):
        order, n = cp.zeros(64, "i"), cp.zeros(1, "i")
        k((8,), (8,), (order, n))
        orders.append(order.get().tolist())
    assert orders[0] == orders[1] != sorted(orders[0]) == list(range(64))
    blocks = [i // 8 for i in orders[0][::8]]
    assert blocks != sorted(blocks)


def test_a_divergent_barrier_is_a_deadlock(capfd):
    k = kernel("if (threadIdx.x < 16) __syncthreads(); else __syncwarp(); *x = 1;")
    with fault("LaunchTimeout"):
        k((1,), (32,), (cp.zeros(1, "f"),))
    assert "deadlock" in capfd.readouterr().err


# ---------------------------------------------------------------- memory that nothing was written to


def test_fresh_memory_is_poisoned():
    pool = cp.cuda.MemoryPool()  # the default one may hold freed memory with data in it
    with cp.cuda.using_allocator(pool.malloc):
        assert np.isnan(cp.empty(123457, "f").get()).all()
        assert (cp.empty(1000, "i").get() == -1).all()
    assert np.isnan(np.frombuffer(cp.cuda.PinnedMemoryPointer(cp.cuda.PinnedMemory(4096), 0), "f", 1024)).all()


@pytest.mark.parametrize("kind", ["__shared__ float s[64];", "extern __shared__ float s[];"], ids=["static", "dynamic"])
def test_shared_memory_is_poisoned_in_each_block(kind):
    k = kernel(
        kind + "if (threadIdx.x) s[threadIdx.x] = 1; __syncthreads(); if (!threadIdx.x) x[blockIdx.x] = s[0], s[0] = 1;"
    )
    x = cp.zeros(3, "f")
    k((3,), (64,), (x,), shared_mem=256)
    assert np.isnan(x.get()).all()


def test_an_uninitialised_read_shows_in_the_result():
    """A sum over an array of which one element was not written."""
    x = raw(64 * 4)
    kernel("if (threadIdx.x) x[threadIdx.x] = 1;")((1,), (64,), (x,))
    assert np.isnan(float(x.sum()))
    x[0] = 1
    assert float(x.sum()) == 64


# ---------------------------------------------------------------- addresses


def test_an_access_out_of_bounds_is_an_illegal_address(capfd):
    k = kernel("x[blockIdx.x * 256 + threadIdx.x] = n;", "float *x, int n", "oob")
    x = raw(4096)
    k((4,), (256,), (x, np.int32(1)))
    with fault("IllegalAddress"):
        k((5,), (256,), (x, np.int32(1)))
    said = capfd.readouterr().err
    assert "kernel 'oob', block (4, 0, 0), thread" in said
    assert "past the end of the 4096-byte allocation" in said
    assert x.get().sum() == 1024


@pytest.mark.parametrize("way", ["load", "store", "atomic"])
def test_any_access_out_of_bounds(way):
    body = {"load": "*y = x[n];", "store": "x[n] = 1;", "atomic": "atomicAdd(x + n, 1.0f);"}[way]
    k, x, y = kernel(body, "float *x, float *y, int n"), raw(4096), cp.zeros(1, "f")
    k((1,), (1,), (x, y, 1023))
    with fault("IllegalAddress"):
        k((1,), (1,), (x, y, 1024))


def test_use_after_free(capfd):
    k = kernel("*x = 1;")
    p = runtime.malloc(512)
    runtime.free(p)
    with fault("IllegalAddress"):
        k((1,), (1,), (np.uintp(p),))
    assert "freed" in capfd.readouterr().err


def test_a_null_pointer():
    with fault("IllegalAddress"):
        kernel("*x = 1;")((1,), (1,), (np.uintp(0),))


def test_host_memory_as_argument(capfd):
    a = np.zeros(4, "f")
    with fault("IllegalAddress"):
        kernel("*x = 1;")((1,), (1,), (np.uintp(a.ctypes.data),))
    assert "points to host memory" in capfd.readouterr().err


def test_dynamic_shared_memory_overflows():
    k = kernel("extern __shared__ float s[]; s[threadIdx.x] = 1; __syncthreads(); *x = s[0];")
    x = cp.zeros(1, "f")
    k((1,), (32,), (x,), shared_mem=128)
    with fault("IllegalAddress"):
        k((1,), (33,), (x,), shared_mem=128)


def test_a_copy_out_of_bounds():
    x = raw(512)
    with pytest.raises(CUDARuntimeError, match="InvalidValue"):
        runtime.memcpy(x.data.ptr, np.zeros(513, "b").ctypes.data, 513, runtime.memcpyHostToDevice)


def test_an_own_allocation_for_each_array_finds_what_the_pool_hides():
    k = kernel("x[n] = 1;", "float *x, int n")
    pool = cp.cuda.MemoryPool()
    with cp.cuda.using_allocator(pool.malloc):
        cp.zeros(1 << 20, "f")  # the pool keeps the memory and parts it
        x = cp.zeros(1024, "f")
        k((1,), (1,), (x, np.int32(1024)))  # lands in the next part
    emulated_gpu.memcheck()
    y = cp.zeros(1024, "f")
    with fault("IllegalAddress"):
        k((1,), (1,), (y, np.int32(1024)))


def test_strict_alignment_catches_one_element():
    done = run(
        """
        import emulated_gpu; emulated_gpu.install()
        import cupy as cp
        emulated_gpu.memcheck()
        x = cp.zeros(1000, 'f')
        k = cp.RawKernel('extern "C" __global__ void f(float *x, int n) { x[n] = 1; }', 'f')
        k((1,), (1,), (x, 999))
        print("in bounds")
        k((1,), (1,), (x, 1000))
        """,
        EMULATED_GPU_ALIGN="16",
    )
    assert done.returncode
    assert done.stdout == "in bounds\n"
    assert "ILLEGAL_ADDRESS" in done.stderr
    assert "0 bytes past the end of the 4000-byte" in done.stderr


# ---------------------------------------------------------------- alignment

WIDE = "struct alignas(16) Four { float x, y, z, w; };\n"
ACCESSES = {
    "a load of float4": ("y[0] = ((const float4 *)(x + n))->w;", 16),
    "a store of float4": ("*(float4 *)(x + n) = make_float4(1, 2, 3, 4);", 16),
    "a load of double2": ("y[0] = ((const double2 *)(x + n))[1].y;", 16),
    "a load of an alignas(16) struct": ("Four v = ((const Four *)(x + n))[t]; y[t] = v.x + v.w;", 16),
    "a store of an alignas(16) struct": ("((Four *)(x + n))[t] = Four{1, 2, 3, 4};", 16),
    "one field of an alignas(16) struct": ("y[t] = ((const Four *)(x + n))[t].y;", 16),
    "__ldcg of float4": ("y[0] = __ldcg((const float4 *)(x + n) + 1).z;", 16),
    "__ldg of float2": ("y[0] = __ldg((const float2 *)(x + n) + 1).y;", 8),
    "a load of double": ("y[0] = ((const double *)(x + n))[2];", 8),
    "an atomic of double": ("atomicAdd((double *)(x + n), 1.0);", 8),
    "a load from shared memory": (
        "__shared__ alignas(16) float s[64]; s[t] = x[t]; __syncthreads(); y[t] = ((float4 *)(s + n))->w;",
        16,
    ),
    "a load from dynamic shared memory": (
        "extern __shared__ float s[]; s[t] = x[t]; __syncthreads(); y[t] = ((Four *)(s + n))->w;",
        16,
    ),
}


@pytest.mark.parametrize("access", ACCESSES)
def test_a_misaligned_access(access, capfd):
    body, needed = ACCESSES[access]
    code = f'{WIDE}extern "C" __global__ void wide(float *x, float *y, int n) {{ int t = threadIdx.x; {body} }}'
    k = module(code).get_function("wide")
    x, y = cp.ones(256, "f"), cp.zeros(256, "f")
    for n in range(9):
        if 4 * n % needed == 0:
            k((2,), (4,), (x, y, np.int32(n)), shared_mem=256)
            continue
        with fault("MisalignedAddress"):
            k((2,), (4,), (x, y, np.int32(n)), shared_mem=256)
        said = capfd.readouterr().err
        assert "kernel 'wide', block (" in said
        assert "misaligned address" in said


def test_a_misaligned_access_in_a_graph():
    k = kernel("float2 v = *(const float2 *)(x + n); x[0] = v.y;", "float *x, int n")
    x = cp.zeros(16, "f")
    stream = cp.cuda.Stream(non_blocking=True)
    stream.begin_capture()
    with stream:
        k((1,), (1,), (x, np.int32(3)))
    graph = stream.end_capture()
    with fault("MisalignedAddress"):
        graph.launch(stream)
