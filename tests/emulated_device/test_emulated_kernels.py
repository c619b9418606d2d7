"""What a kernel may use of CUDA C++, what it is launched with, and that this means what it does on a GPU."""

import math

import emulated_gpu
import numpy as np
import pytest
from gpu_code import BLOCK_SUM, CUDADriverError, cp, fault, kernel, module, rng


def test_block_sum_by_name_expression():
    m = module(BLOCK_SUM, ["block_sum<float, 256>", "block_sum<float, 64>"])
    a = rng(4096)
    for block in (256, 64):
        out, f = cp.zeros(1, "f"), m.get_function(f"block_sum<float, {block}>")
        f((5,), (block,), (cp.asarray(a), out, 4096, np.float32(2)), shared_mem=16 * block)
        np.testing.assert_allclose(out.get()[0], 2 * a.sum(), rtol=1e-4)


def test_scalars_go_by_their_own_size():
    """A Python float is passed as a double: a float parameter reads its low half, as on a GPU."""
    k = kernel("*out = v + n;", "float *out, float v, int n")
    out = cp.zeros(1, "f")
    k((1,), (1,), (out, np.float32(1.5), np.int32(2)))
    assert out.get()[0] == 3.5
    k((1,), (1,), (out, 1.5, 2))
    assert out.get()[0] == 2.0  # the low half of 1.5 as a double is 0


def test_types_half_and_vectors():
    k = module(r"""
    #include <cuda_fp16.h>
    #include <cuda_bf16.h>
    struct Pair { short a; double b; };
    extern "C" __global__ void f(const __half2 *x, __nv_bfloat16 *y, double *z, Pair p, int4 v) {
      __half2 h = __hfma2(x[0], x[0], __float2half2_rn(1.0f));
      y[0] = __float2bfloat16(__low2float(h));
      y[1] = __float2bfloat16(__half2float(__high2half(h)));
      z[0] = p.a + p.b + v.x + v.w + __popc(7) + __ldg(&v.y) + rsqrtf(4.0f);
    }""").get_function("f")
    y, z = cp.zeros(2, "u2"), cp.zeros(1)
    pair = np.array((3, 0.25), dtype=np.dtype([("a", "i2"), ("b", "f8")], align=True))[()]
    four = np.array((1, 2, 3, 4), dtype=np.dtype([(n, "i4") for n in "xyzw"]))[()]
    k((1,), (1,), (cp.asarray([2, 3], "e"), y, z, pair, four))
    assert ((y.get().astype("u4") << 16).view("f") == [5, 10]).all()
    assert z.get()[0] == 3 + 0.25 + 1 + 4 + 3 + 2 + 0.5


def test_warp_operations():
    k = kernel(
        r"""
      int t = threadIdx.x, lane = t & 31;
      unsigned odd = __ballot_sync(~0u, lane & 1);
      int up = __shfl_up_sync(~0u, lane, 1), x = __shfl_xor_sync(~0u, lane, 5), w = __shfl_sync(~0u, lane, 3, 8);
      int half = __shfl_sync(lane < 16 ? 0xffffu : 0xffff0000u, lane, lane < 16 ? 7 : 20);
      float y = __shfl_xor_sync(~0u, (float)lane, 4, 8);
      double beyond = __shfl_xor_sync(~0u, (double)lane, 8, 8);   // leaves the group of 8: below reads, above stays
      bool ok = odd == 0xaaaaaaaau && up == (lane ? lane - 1 : 0) && x == (lane ^ 5) && w == (lane & 24) + 3 &&
                half == (lane < 16 ? 7 : 20) && __any_sync(~0u, lane == 9) && !__all_sync(~0u, lane == 9) &&
                __match_any_sync(~0u, lane / 8) == 0xffu << (lane & 24) && __reduce_add_sync(~0u, lane) == 496 &&
                __syncthreads_count(lane == 0) == blockDim.x / 32 && y == (lane ^ 4) &&
                beyond == (lane & 8 ? lane ^ 8 : lane);
      out[t] = ok;""",
        "int *out",
    )
    out = cp.zeros(128, "i")
    k((1,), (128,), (out,))
    assert out.get().all()


FUNCTIONS = ["exp", "log", "tanh", "log1p", "expm1", "sqrt", "fabs", "sin", "cos", "erf", "exp2", "log2", "floor"]
FUNCTIONS_IN_CUDA = r"""
template <typename T> struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) Four { T x, y, z, w; };
template <typename T> __global__ void functions(const T *x, T *y, int n) {
  int i = threadIdx.x;
  if (i >= n) return;
  T v = x[i];
  T *o = y + 20 * i;
  o[0] = exp(v); o[1] = log(v); o[2] = tanh(v); o[3] = log1p(v); o[4] = expm1(v); o[5] = sqrt(v); o[6] = fabs(v);
  o[7] = sin(v); o[8] = cos(v); o[9] = erf(v); o[10] = exp2(v); o[11] = log2(v); o[12] = floor(v);
  o[13] = pow(v, T(1.5)); o[14] = fma(v, v, T(1)); o[15] = isfinite(v) && !isnan(v) && !isinf(v);
  o[16] = isnan(v - v / T(0)) + isnan(T(0) / T(0)) + 10 * isfinite(v / T(0)); o[17] = copysign(v, T(-1));
  o[18] = fmax(v, T(0.5)); o[19] = fmin(v, T(0.5));
}
extern "C" __global__ void integers(const float4 *x, Four<float> *four, unsigned *out, unsigned *ticket) {
  __shared__ unsigned last;
  unsigned i = threadIdx.x;
  float4 v = __ldcg(x + i);
  four[i] = Four<float>{v.w, v.z, v.y, v.x};
  out[i] = __umulhi(0x9E3779B9u * (i + 1), 0x85EBCA6Bu) ^ __umulhi(~0u, i);
  __threadfence();
  unsigned mine = atomicAdd(ticket, 1u);
  if (mine == blockDim.x - 1) last = i;
  __syncthreads();
  if (i == last) out[i] = 12345u;
}
"""


@pytest.mark.parametrize(("name", "dtype"), [("float", "f"), ("double", "d")])
def test_functions_in_both_precisions(name, dtype):
    x = np.array([0.25, 1, 2.75, 30], dtype)
    y = cp.zeros((4, 20), dtype)
    f = module(FUNCTIONS_IN_CUDA, [f"functions<{name}>"]).get_function(f"functions<{name}>")
    f((1,), (32,), (cp.asarray(x), y, 4))
    erf = np.vectorize(math.erf)
    expected = [(erf if n == "erf" else getattr(np, n))(x.astype("d")) for n in FUNCTIONS]
    expected += [x.astype("d") ** 1.5, x.astype("d") ** 2 + 1, x**0, 1 + x**0 * 0, -x, np.maximum(x, 0.5)]
    expected += [np.minimum(x, 0.5)]
    np.testing.assert_allclose(y.get().T, expected, rtol=1e-6 if dtype == "f" else 1e-14)


def test_vectors_tickets_and_integer_functions():
    x = rng(32, 4)
    four, out, ticket = cp.zeros((32, 4), "f"), cp.zeros(32, "u4"), cp.zeros(1, "u4")
    module(FUNCTIONS_IN_CUDA).get_function("integers")((1,), (32,), (cp.asarray(x), four, out, ticket))
    i = np.arange(32, dtype=np.uint64)
    high = (((0x9E3779B9 * (i + 1)) % 2**32) * 0x85EBCA6B >> 32) ^ (i * (2**32 - 1) >> 32)
    assert (four.get() == x[:, ::-1]).all()
    assert ticket.get()[0] == 32
    assert ((out.get() == high) | (out.get() == 12345)).all()
    assert (out.get() == 12345).sum() == 1


@pytest.mark.parametrize("source", [BLOCK_SUM, FUNCTIONS_IN_CUDA], ids=["block_sum", "functions"])
def test_the_real_compiler_accepts_what_these_tests_use(source):
    pytest.importorskip("nvidia.cu13")
    names = ["block_sum<float, 256>"] if source is BLOCK_SUM else ["functions<float>", "functions<double>"]
    emulated_gpu.check_with_nvrtc(source, names)


def test_the_real_compiler_refuses_what_only_gcc_accepts():
    pytest.importorskip("nvidia.cu13")
    with pytest.raises(RuntimeError, match="vector"):
        emulated_gpu.check_with_nvrtc('extern "C" __global__ void f(int *x) { std::vector<int> v; *x = v.size(); }')


def test_constant_memory_and_globals():
    m = module(
        "__constant__ float scale[4]; __device__ int counter = 5;"
        'extern "C" __global__ void f(float *x) {'
        "  x[threadIdx.x] *= scale[threadIdx.x]; if (!threadIdx.x) atomicAdd(&counter, 2); }"
    )
    scale = cp.ndarray((4,), "f", m.get_global("scale"))
    scale[...] = cp.asarray([1, 2, 3, 4], "f")
    x = cp.ones(4, "f")
    m.get_function("f")((1,), (4,), (x,))
    assert x.get().tolist() == [1, 2, 3, 4]
    assert cp.ndarray((1,), "i", m.get_global("counter")).get()[0] == 7


def test_kernel_named_like_a_function():
    k = module(
        "template <class T> __device__ T twice(T x) { return 2 * x; }"
        'extern "C" __global__ void twice(float *x) { *x = twice(*x); }'
    ).get_function("twice")
    x = cp.ones(1, "f")
    k((1,), (1,), (x,))
    assert x.get()[0] == 2


@pytest.mark.parametrize("name", ["undefined_thing", "INFINITY", "NAN"])  # which g++'s headers define, NVRTC does not
def test_compile_error_is_a_compile_exception(name):
    with pytest.raises(cp.cuda.compiler.CompileException, match=name):
        kernel(f"*x = {name};")


DYNAMIC = "extern __shared__ float s[]; s[threadIdx.x] = 1; __syncthreads(); x[0] = s[0];"


@pytest.mark.parametrize(
    ("grid", "block", "shared"),
    [((1,), (1025,), 0), ((1,), (1, 1, 65), 0), ((1, 65536), (1,), 0), ((1,), (32,), 49153)],
)
def test_launch_limits(grid, block, shared):
    with pytest.raises(CUDADriverError, match="INVALID_VALUE"):
        kernel(DYNAMIC)(grid, block, (cp.zeros(1, "f"),), shared_mem=shared)


def test_more_dynamic_shared_memory_for_who_asks():
    f, x = kernel(DYNAMIC, name="asks"), cp.zeros(1, "f")
    f.max_dynamic_shared_size_bytes = 100000
    f((1,), (32,), (x,), shared_mem=100000)
    assert x.get()[0] == 1
    with pytest.raises(CUDADriverError, match="INVALID_VALUE"):
        f((1,), (32,), (x,), shared_mem=100001)
    with pytest.raises(CUDADriverError, match="INVALID_VALUE"):
        f.max_dynamic_shared_size_bytes = 232449


SEVERAL = """
__device__ float help(float x) {
  __shared__ float h[1000]; h[threadIdx.x] = x; __syncthreads(); return h[threadIdx.x]; }
template <int N> __global__ void t(float *x) {
  __shared__ float s[N]; s[threadIdx.x] = x[threadIdx.x]; __syncthreads(); x[threadIdx.x] = help(s[1]); }
extern "C" __global__ void without(float *x) { x[0] = 1; }
extern "C" __global__ void dynamic(float *x) { %s }
extern "C" __global__ void both(float *x) {
  extern __shared__ float s[]; __shared__ double d;
  d = 2; s[threadIdx.x] = 1; __syncthreads(); x[0] = help(d + s[0]); }
"""


def test_static_shared_memory_counts_for_each_kernel_of_a_module():
    m, x = module(SEVERAL % DYNAMIC, ["t<64>", "t<9000>"]), cp.zeros(64, "f")
    found = {n: m.get_function(n).shared_size_bytes for n in ("t<64>", "t<9000>", "without", "dynamic", "both")}
    assert found == {"t<64>": 4256, "t<9000>": 40000, "without": 0, "dynamic": 0, "both": 4008}
    m.get_function("dynamic")((1,), (32,), (x,), shared_mem=49152)
    m.get_function("both")((1,), (32,), (x,), shared_mem=49152 - 4008)
    assert x.get()[0] == 3
    with pytest.raises(CUDADriverError, match="INVALID_VALUE"):
        m.get_function("both")((1,), (32,), (x,), shared_mem=49152 - 4008 + 1)


@pytest.mark.parametrize("names", [["t<64>"], ["t<64>", "t<12000>"]])
def test_too_much_static_shared_memory_does_not_compile(names):
    source = SEVERAL % DYNAMIC
    if len(names) == 1:
        module(source, names).get_function("both")
        return
    with pytest.raises(cp.cuda.compiler.CompileException, match=r"t<12000>' uses too much shared data"):
        module(source, names).get_function("both")


def test_device_assert_and_printf(capfd):
    k = module('#include <cassert>\nextern "C" __global__ void f(int n) { printf("n=%d\\n", n); assert(n == 1); }')
    k = k.get_function("f")
    k((1,), (1,), (np.int32(1),))
    with fault("Assert"):
        k((1,), (1,), (np.int32(2),))
    assert "assertion failed: n == 1" in capfd.readouterr().err
