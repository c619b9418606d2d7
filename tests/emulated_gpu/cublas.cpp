// The cuBLAS functions that CuPy's dense arrays use. Column-major; float16 and bfloat16 accumulate in
// float. What is missing here returns CUBLAS_STATUS_NOT_SUPPORTED (see build in hook.py).
#include "blas.h"

#include <memory>

namespace {

struct Handle { void *stream = nullptr; int pointer_mode = 0, math_mode = 0, atomics_mode = 0, sm_count = 0; bool own_workspace = false; };

// Host pointer mode reads a scalar at the call, device pointer mode when the operation runs.
template <class T> std::function<T()> scalar(Handle *h, const T *p) {
  if (h->pointer_mode) return [p] { return *p; };
  T value = *p;
  return [value] { return value; };
}

Status submit(Handle *h, const std::string &name, std::function<void()> work) {
  if (!h) return notInitialized;
  // Without a workspace of the user's, cuBLAS is documented to be free to allocate one in the graph.
  if (!h->own_workspace) allocation_in_graph(h->stream, true);
  if (enqueue(h->stream, "cublas", name, [name, work] { return run_guarded(name, work); })) return failed;
  if (!h->own_workspace) allocation_in_graph(h->stream, false);
  return success;
}

struct Gemm {
  const char *name;
  int opa, opb, m, n, k, lda, ldb, ldc, batch = 1;
  const void *a, *b; void *c;
  long stride_a = 0, stride_b = 0, stride_c = 0;
  bool pointers = false;                         // a, b and c are device arrays of pointers
};

template <class SA, class SC, class Acc, class Scale>
Status gemm(Handle *h, Gemm g, Type type, const Scale *alpha, const Scale *beta, bool use_tf32 = false) {
  if (!h) return notInitialized;
  int rows_a = g.opa ? g.k : g.m, rows_b = g.opb ? g.n : g.k;
  if (g.m < 0 || g.n < 0 || g.k < 0 || g.batch < 0 || g.lda < std::max(1, rows_a) || g.ldb < std::max(1, rows_b) || g.ldc < std::max(1, g.m))
    return invalid;
  count("gemm", std::string(g.name) + " " + type_name(type) + " " + "NTCn"[g.opa] + "NTCn"[g.opb] + " m=" + std::to_string(g.m) + " n=" +
        std::to_string(g.n) + " k=" + std::to_string(g.k) + " batch=" + std::to_string(g.batch));
  if (!g.m || !g.n || !g.batch) return success;
  auto read_alpha = scalar(h, alpha), read_beta = scalar(h, beta);
  use_tf32 |= h->math_mode == 3;
  return submit(h, g.name, [=] {
    Acc al = (Acc)read_alpha(), be = (Acc)read_beta();
    Operand a{"A", {}, g.opa ? g.m : g.k, g.opa ? g.k : g.m, g.lda, sizeof(SA)}, b{"B", {}, g.opb ? g.k : g.n, g.opb ? g.n : g.k, g.ldb, sizeof(SA)},
            c{"C", {}, g.n, g.m, g.ldc, sizeof(SC)};
    for (int i = 0; i < g.batch; i++) {
      a.matrices.push_back(g.pointers ? ((const void *const *)g.a)[i] : (const SA *)g.a + i * g.stride_a);
      b.matrices.push_back(g.pointers ? ((const void *const *)g.b)[i] : (const SA *)g.b + i * g.stride_b);
      c.matrices.push_back(g.pointers ? ((void *const *)g.c)[i] : (SC *)g.c + i * g.stride_c);
    }
    check_operands(c, g.k ? std::vector<Operand>{a, b} : std::vector<Operand>{});
    for (int i = 0; i < g.batch; i++)
      multiply<SA, SC, Acc>(g.opa, g.opb, g.m, g.n, g.k, al, (const SA *)a.matrices[i], g.lda, (const SA *)b.matrices[i], g.ldb, be,
                            (SC *)c.matrices[i], g.ldc, use_tf32);
  });
}

// Types as cublasGemmEx allows them: the scalars have the compute type.
Status gemm_ex(Handle *h, const Gemm &g, int ta, int tb, int tc, const void *alpha, const void *beta, int compute) {
  bool fast_tf32 = compute == 77, f32 = compute == 68 || compute == 69 || (compute >= 74 && compute <= 77);
  if (ta != tb) return unsupported;
#define CASE(A, C, COMPUTE, SA, SC, ACC, SCALE) \
  if (ta == A && tc == C && (COMPUTE)) return gemm<SA, SC, ACC, SCALE>(h, g, (Type)ta, (const SCALE *)alpha, (const SCALE *)beta, fast_tf32);
  CASE(R16, R16, compute == 64 || compute == 65, half, half, float, half)
  CASE(R16, R16, f32, half, half, float, float)
  CASE(R16, R32, f32, half, float, float, float)
  CASE(B16, B16, f32, bf16, bf16, float, float)
  CASE(B16, R32, f32, bf16, float, float, float)
  CASE(R32, R32, f32, float, float, float, float)
  CASE(R64, R64, compute == 70 || compute == 71, double, double, double, double)
  CASE(C32, C32, f32, c32, c32, c32, c32)
  CASE(C64, C64, compute == 70 || compute == 71, c64, c64, c64, c64)
  CASE(R8I, I32, compute == 72 || compute == 73, signed char, int, int, int)
  CASE(R8I, R32, f32, signed char, float, float, float)
#undef CASE
  return unsupported;
}

template <class T> auto magnitude(T v) { return std::abs(v); }
template <class T> T magnitude1(T v) { return std::abs(v); }
template <class T> T magnitude1(std::complex<T> v) { return std::abs(v.real()) + std::abs(v.imag()); }

// A function whose result is a scalar: with a host pointer it waits for the result.
template <class R> Status reduce(Handle *h, const char *name, R *out, std::function<R()> f) {
  if (!h) return notInitialized;
  if (h->pointer_mode) return submit(h, name, [=] { *out = f(); });
  auto value = std::make_shared<R>();
  if (Status s = submit(h, name, [=] { *value = f(); })) return s;
  if (synchronize(h->stream)) return failed;
  *out = *value;
  return success;
}

}  // namespace

extern "C" {

Status cublasCreate_v2(Handle **h) { *h = new Handle; return success; }
Status cublasDestroy_v2(Handle *h) { delete h; return success; }
Status cublasGetVersion_v2(Handle *, int *v) { *v = EMU_CUDA_VERSION / 1000 * 10000; return success; }
Status cublasSetStream_v2(Handle *h, void *s) { h->stream = s, h->own_workspace = false; return success; }   // documented
Status cublasGetStream_v2(Handle *h, void **s) { *s = h->stream; return success; }
Status cublasSetPointerMode_v2(Handle *h, int m) { h->pointer_mode = m; return success; }
Status cublasGetPointerMode_v2(Handle *h, int *m) { *m = h->pointer_mode; return success; }
Status cublasSetMathMode(Handle *h, int m) { h->math_mode = m; return success; }
Status cublasGetMathMode(Handle *h, int *m) { *m = h->math_mode; return success; }
Status cublasSetWorkspace_v2(Handle *h, void *p, size_t size) {
  if ((uintptr_t)p % 256 || (p && !outside(p, size).empty())) return invalid;
  h->own_workspace = p && size;
  return success;
}
Status cublasGetProperty(int which, int *value) { return get_property(which, value); }
size_t cublasGetCudartVersion() { return EMU_CUDA_VERSION; }
const char *cublasGetStatusName(int s) { return status_name(s); }
const char *cublasGetStatusString(int s) { return status_string(s); }
Status cublasSetAtomicsMode(Handle *h, int m) { h->atomics_mode = m; return success; }
Status cublasGetAtomicsMode(Handle *h, int *m) { *m = h->atomics_mode; return success; }
Status cublasSetSmCountTarget(Handle *h, int n) { if (n < 0) return invalid; h->sm_count = n; return success; }
Status cublasGetSmCountTarget(Handle *h, int *n) { *n = h->sm_count; return success; }

#define LEVEL3(L, T, CODE)                                                                                               \
  Status cublas##L##gemm_v2(Handle *h, int opa, int opb, int m, int n, int k, const T *al, const T *a, int lda, const T *b, int ldb, const T *be, T *c, int ldc) { \
    return gemm<T, T, T, T>(h, {#L "gemm", opa, opb, m, n, k, lda, ldb, ldc, 1, a, b, c}, CODE, al, be);                 \
  }                                                                                                                      \
  Status cublas##L##gemmStridedBatched(Handle *h, int opa, int opb, int m, int n, int k, const T *al, const T *a, int lda, long long sa, const T *b, int ldb, long long sb, \
                                       const T *be, T *c, int ldc, long long sc, int batch) {                            \
    return gemm<T, T, T, T>(h, {#L "gemmStridedBatched", opa, opb, m, n, k, lda, ldb, ldc, batch, a, b, c, sa, sb, sc}, CODE, al, be); \
  }                                                                                                                      \
  Status cublas##L##gemmBatched(Handle *h, int opa, int opb, int m, int n, int k, const T *al, const void *a, int lda, const void *b, int ldb, const T *be, void *c, int ldc, int batch) { \
    return gemm<T, T, T, T>(h, {#L "gemmBatched", opa, opb, m, n, k, lda, ldb, ldc, batch, a, b, c, 0, 0, 0, true}, CODE, al, be); \
  }                                                                                                                      \
  Status cublas##L##syrk_v2(Handle *h, int uplo, int op, int n, int k, const T *al, const T *a, int lda, const T *be, T *c, int ldc) { \
    if (n < 0 || k < 0 || lda < std::max(1, op ? k : n) || ldc < std::max(1, n)) return invalid;                         \
    auto alpha = scalar(h, al), beta = scalar(h, be);                                                                    \
    return submit(h, #L "syrk", [=] {                                                                                    \
      std::vector<T> full(std::max(1l, (long)n * n));                                                                    \
      multiply<T, T, T>(op, !op, n, n, k, alpha(), a, lda, a, lda, T(0), full.data(), n, false);                         \
      for (long j = 0; j < n; j++)                                                                                       \
        for (long i = uplo ? 0 : j; i < (uplo ? j + 1 : n); i++) {                                                       \
          T &out = c[j * ldc + i];                                                                                       \
          out = beta() == T(0) ? full[j * n + i] : full[j * n + i] + beta() * out;                                       \
        }                                                                                                                \
    });                                                                                                                  \
  }                                                                                                                      \
  Status cublas##L##gemv_v2(Handle *h, int op, int m, int n, const T *al, const T *a, int lda, const T *x, int incx, const T *be, T *y, int incy) { \
    if (m < 0 || n < 0 || lda < std::max(1, m) || incx < 1 || incy < 1) return invalid;                                  \
    auto alpha = scalar(h, al), beta = scalar(h, be);                                                                    \
    int rows = op ? n : m, inner = op ? m : n;                                                                           \
    count("gemm", std::string(#L "gemv ") + type_name(CODE) + " m=" + std::to_string(m) + " n=" + std::to_string(n));    \
    return submit(h, #L "gemv", [=] { /* as a product of a row with the transposed matrix */                             \
      multiply<T, T, T>(0, op == 0 ? 1 : op == 1 ? 0 : 3, 1, rows, inner, alpha(), x, incx, a, lda, beta(), y, incy, false); \
    });                                                                                                                  \
  }                                                                                                                      \
  Status cublas##L##geam(Handle *h, int opa, int opb, int m, int n, const T *al, const T *a, int lda, const T *be, const T *b, int ldb, T *c, int ldc) { \
    if (m < 0 || n < 0 || ldc < std::max(1, m) || lda < std::max(1, opa ? n : m) || ldb < std::max(1, opb ? n : m)) return invalid; \
    auto alpha = scalar(h, al), beta = scalar(h, be);                                                                    \
    return submit(h, #L "geam", [=] {                                                                                    \
      T p = alpha(), q = beta();                                                                                         \
      std::vector<T> out((long)m * n);                                                                                   \
      for (long j = 0; j < n; j++)                                                                                       \
        for (long i = 0; i < m; i++)                                                                                     \
          out[j * m + i] = (p == T(0) ? T(0) : p * element<T, T>(a, lda, opa, i, j)) + (q == T(0) ? T(0) : q * element<T, T>(b, ldb, opb, i, j)); \
      for (long j = 0; j < n; j++) std::copy_n(&out[j * m], m, c + j * ldc);                                             \
    });                                                                                                                  \
  }                                                                                                                      \
  Status cublas##L##dgmm(Handle *h, int side, int m, int n, const T *a, int lda, const T *x, int incx, T *c, int ldc) {  \
    if (m < 0 || n < 0 || lda < std::max(1, m) || ldc < std::max(1, m)) return invalid;                                  \
    return submit(h, #L "dgmm", [=] {                                                                                    \
      for (long j = 0; j < n; j++) for (long i = 0; i < m; i++) c[j * ldc + i] = a[j * lda + i] * x[(side ? j : i) * incx]; \
    });                                                                                                                  \
  }                                                                                                                      \
  Status cublas##L##axpy_v2(Handle *h, int n, const T *al, const T *x, int incx, T *y, int incy) {                       \
    auto alpha = scalar(h, al);                                                                                          \
    return submit(h, #L "axpy", [=] { T f = alpha(); for (long i = 0; i < n; i++) y[i * incy] += f * x[i * incx]; });    \
  }                                                                                                                      \
  Status cublas##L##scal_v2(Handle *h, int n, const T *al, T *x, int incx) {                                             \
    auto alpha = scalar(h, al);                                                                                          \
    return submit(h, #L "scal", [=] { T f = alpha(); for (long i = 0; i < n; i++) x[i * incx] *= f; });                  \
  }
LEVEL3(S, float, R32) LEVEL3(D, double, R64) LEVEL3(C, c32, C32) LEVEL3(Z, c64, C64)

#define DOT(NAME, T, F)                                                                                                  \
  Status cublas##NAME##_v2(Handle *h, int n, const T *x, int incx, const T *y, int incy, T *out) {                       \
    return reduce<T>(h, #NAME, out, [=] { T s(0); for (long i = 0; i < n; i++) s += F(x[i * incx]) * y[i * incy]; return s; }); \
  }
DOT(Sdot, float, ) DOT(Ddot, double, ) DOT(Cdotu, c32, ) DOT(Zdotu, c64, ) DOT(Cdotc, c32, conjugate) DOT(Zdotc, c64, conjugate)
#define GER(NAME, T, F)                                                                                                  \
  Status cublas##NAME##_v2(Handle *h, int m, int n, const T *al, const T *x, int incx, const T *y, int incy, T *a, int lda) { \
    if (m < 0 || n < 0 || lda < std::max(1, m)) return invalid;                                                          \
    auto alpha = scalar(h, al);                                                                                          \
    return submit(h, #NAME, [=] { T f = alpha(); for (long j = 0; j < n; j++) for (long i = 0; i < m; i++) a[j * lda + i] += f * x[i * incx] * F(y[j * incy]); }); \
  }
GER(Sger, float, ) GER(Dger, double, ) GER(Cgeru, c32, ) GER(Zgeru, c64, ) GER(Cgerc, c32, conjugate) GER(Zgerc, c64, conjugate)
#define NORMS(P, T, R, NRM2, ASUM)                                                                                       \
  Status cublas##NRM2##_v2(Handle *h, int n, const T *x, int incx, R *out) {                                             \
    return reduce<R>(h, #NRM2, out, [=] { double s = 0; for (long i = 0; i < n; i++) { double v = magnitude(x[i * incx]); s += v * v; } return (R)std::sqrt(s); }); \
  }                                                                                                                      \
  Status cublas##ASUM##_v2(Handle *h, int n, const T *x, int incx, R *out) {                                             \
    return reduce<R>(h, #ASUM, out, [=] { double s = 0; for (long i = 0; i < n; i++) s += magnitude1(x[i * incx]); return (R)s; }); \
  }                                                                                                                      \
  Status cublasI##P##amax_v2(Handle *h, int n, const T *x, int incx, int *out) {                                         \
    return reduce<int>(h, "I" #P "amax", out, [=] { int best = 0; for (int i = 1; i < n; i++) if (magnitude1(x[(long)i * incx]) > magnitude1(x[(long)best * incx])) best = i; return n > 0 ? best + 1 : 0; }); \
  }                                                                                                                      \
  Status cublasI##P##amin_v2(Handle *h, int n, const T *x, int incx, int *out) {                                         \
    return reduce<int>(h, "I" #P "amin", out, [=] { int best = 0; for (int i = 1; i < n; i++) if (magnitude1(x[(long)i * incx]) < magnitude1(x[(long)best * incx])) best = i; return n > 0 ? best + 1 : 0; }); \
  }
NORMS(s, float, float, Snrm2, Sasum) NORMS(d, double, double, Dnrm2, Dasum) NORMS(c, c32, float, Scnrm2, Scasum) NORMS(z, c64, double, Dznrm2, Dzasum)

Status cublasHgemm(Handle *h, int opa, int opb, int m, int n, int k, const half *al, const half *a, int lda, const half *b, int ldb, const half *be, half *c, int ldc) {
  return gemm<half, half, float, half>(h, {"Hgemm", opa, opb, m, n, k, lda, ldb, ldc, 1, a, b, c}, R16, al, be);
}
Status cublasSgemmEx(Handle *h, int opa, int opb, int m, int n, int k, const float *al, const void *a, int ta, int lda, const void *b, int tb, int ldb,
                     const float *be, void *c, int tc, int ldc) {
  return gemm_ex(h, {"SgemmEx", opa, opb, m, n, k, lda, ldb, ldc, 1, a, b, c}, ta, tb, tc, al, be, 68);
}
Status cublasGemmEx(Handle *h, int opa, int opb, int m, int n, int k, const void *al, const void *a, int ta, int lda, const void *b, int tb, int ldb,
                    const void *be, void *c, int tc, int ldc, int compute, int) {
  return gemm_ex(h, {"GemmEx", opa, opb, m, n, k, lda, ldb, ldc, 1, a, b, c}, ta, tb, tc, al, be, compute);
}
Status cublasGemmBatchedEx(Handle *h, int opa, int opb, int m, int n, int k, const void *al, const void *a, int ta, int lda, const void *b, int tb, int ldb,
                           const void *be, void *c, int tc, int ldc, int batch, int compute, int) {
  return gemm_ex(h, {"GemmBatchedEx", opa, opb, m, n, k, lda, ldb, ldc, batch, a, b, c, 0, 0, 0, true}, ta, tb, tc, al, be, compute);
}
Status cublasGemmStridedBatchedEx(Handle *h, int opa, int opb, int m, int n, int k, const void *al, const void *a, int ta, int lda, long long sa, const void *b, int tb,
                                  int ldb, long long sb, const void *be, void *c, int tc, int ldc, long long sc, int batch, int compute, int) {
  return gemm_ex(h, {"GemmStridedBatchedEx", opa, opb, m, n, k, lda, ldb, ldc, batch, a, b, c, sa, sb, sc}, ta, tb, tc, al, be, compute);
}

}
