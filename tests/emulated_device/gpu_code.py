"""What several test files of the emulated device need. Importing it skips a test file where another device is used."""

import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import emulated_gpu
import numpy as np
import pytest
from devices import cupy_on

cp = cupy_on("emulated")
runtime = cp.cuda.runtime
CUDADriverError = cp.cuda.driver.CUDADriverError
CUDARuntimeError = runtime.CUDARuntimeError
LIBRARY_ERRORS = (
    pytest.importorskip("nvmath.bindings.cublas").cuBLASError,
    pytest.importorskip("nvmath.bindings.cublasLt").cuBLASLtError,
)


def module(code, names=()):
    return cp.RawModule(code=code, name_expressions=list(names) or None, options=("--std=c++17",))


def kernel(body, parameters="float *x", name="f"):
    """The kernel f(parameters) { body }."""
    code = f'extern "C" __global__ void {name}({parameters}) {{ {body} }}'
    return module(code).get_function(name)


def rng(*shape, dtype="f"):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def raw(size, dtype="f"):
    """An array with an allocation of its own, whose end is guarded."""
    memory = cp.cuda.memory.MemoryPointer(cp.cuda.memory.Memory(size), 0)
    return cp.ndarray((size // np.dtype(dtype).itemsize,), dtype, memory)


def pinned(n, dtype="f"):
    return np.frombuffer(cp.cuda.alloc_pinned_memory(n * 4), dtype, n)


@contextmanager
def fault(name):
    """The block ends in the error cudaError<name>, which every later call then reports until the device is reset."""
    with pytest.raises((CUDADriverError, CUDARuntimeError, *LIBRARY_ERRORS)):
        yield
    with pytest.raises(CUDARuntimeError, match=f"cudaError{name}:"):
        cp.cuda.Device().synchronize()
    emulated_gpu.reset_device()
    cp.cuda.Device().synchronize()


def new_stream():
    """A stream that does not wait for the default stream."""
    return cp.cuda.Stream(non_blocking=True)


def run(code, **environment):
    """The ended process of a script; the emulated device is importable in it, and installed if it says so."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


BLOCK_SUM = r"""
template <typename T, int N> __device__ T warp_sum(T v) {
  for (int d = N / 2; d; d /= 2) v += __shfl_down_sync(0xffffffffu, v, d);
  return v;
}
template <typename T, int BLOCK>
__global__ void __launch_bounds__(BLOCK) block_sum(const T* __restrict__ x, T* __restrict__ out, int n, T scale) {
  __shared__ T partial[BLOCK / 32];
  extern __shared__ float4 tile[];
  T s = 0;
  for (int i = blockIdx.x * BLOCK + threadIdx.x; i < n / 4; i += gridDim.x * BLOCK) {
    tile[threadIdx.x] = reinterpret_cast<const float4*>(x)[i];
    float4 v = tile[threadIdx.x];
    s += v.x + v.y + v.z + v.w;
  }
  s = warp_sum<T, 32>(s);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = s;
  __syncthreads();
  if (threadIdx.x < 32) {
    s = warp_sum<T, 32>(threadIdx.x < BLOCK / 32 ? partial[threadIdx.x] : T(0));
    if (threadIdx.x == 0) atomicAdd(out, s * scale);
  }
}
"""
SLOW_FILL = 'extern "C" __global__ void f(float *x, float v, int n) { for (int i = 0; i < n; i++) x[i] = v; }'
