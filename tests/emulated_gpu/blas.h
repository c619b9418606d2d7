// Shared by cublas.cpp and cublaslt.cpp: the types, and the product of matrices. Column-major; float16
// and bfloat16 accumulate in float.
#pragma once
#include "core.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>
#include <type_traits>

using namespace emu;

namespace {

enum Status { success = 0, notInitialized = 1, invalid = 7, failed = 13, unsupported = 15 };
enum Type { R32 = 0, R64 = 1, R16 = 2, R8I = 3, C32 = 4, C64 = 5, I32 = 10, B16 = 14 };   // cudaDataType
using c32 = std::complex<float>;
using c64 = std::complex<double>;
struct half { unsigned short bits; operator float() const { _Float16 v; memcpy(&v, &bits, 2); return v; } half(float f) { _Float16 v = (_Float16)f; memcpy(&bits, &v, 2); } };
struct bf16 {
  unsigned short bits;
  operator float() const { unsigned u = (unsigned)bits << 16; float f; memcpy(&f, &u, 4); return f; }
  bf16(float f) { unsigned u; memcpy(&u, &f, 4); bits = std::isnan(f) ? 0x7FFF : (u + 0x7FFF + (u >> 16 & 1)) >> 16; }
};

const char *status_name(int s) {
  return s == success ? "CUBLAS_STATUS_SUCCESS" : s == notInitialized ? "CUBLAS_STATUS_NOT_INITIALIZED" : s == invalid ? "CUBLAS_STATUS_INVALID_VALUE"
       : s == failed ? "CUBLAS_STATUS_EXECUTION_FAILED" : s == unsupported ? "CUBLAS_STATUS_NOT_SUPPORTED" : "unrecognized status";
}
const char *status_string(int s) {
  return s == success ? "success" : s == notInitialized ? "the library was not initialized"
       : s == invalid ? "an unsupported value or parameter was passed to the function" : s == failed ? "the function failed to launch on the GPU"
       : s == unsupported ? "the requested functionality is not supported" : "unrecognized status";
}
Status get_property(int which, int *value) {     // major, minor, patch level of the version
  if (which < 0 || which > 2 || !value) return invalid;
  *value = which == 0 ? EMU_CUDA_VERSION / 1000 : which == 1 ? EMU_CUDA_VERSION % 1000 / 10 : 0;
  return success;
}

const char *type_name(int t) { return t == R32 ? "float32" : t == R64 ? "float64" : t == R16 ? "float16" : t == B16 ? "bfloat16" : t == C32 ? "complex64" : t == C64 ? "complex128" : "int8"; }

template <class T> T conjugate(T v) { return v; }
template <class T> std::complex<T> conjugate(std::complex<T> v) { return std::conj(v); }
float tf32(float v) {                            // round to 10 bits of mantissa
  unsigned u;
  memcpy(&u, &v, 4);
  if ((u & 0x7F800000) != 0x7F800000) u = (u + 0xFFF + (u >> 13 & 1)) & ~0x1FFFu;
  memcpy(&v, &u, 4);
  return v;
}

// The matrices of an operation as they lie in memory: each has so many runs (its columns) of elements, ld apart.
struct Operand { const char *name; std::vector<const void *> matrices; long runs, length, ld, size; };
using Spans = std::vector<std::pair<uintptr_t, uintptr_t>>;

size_t extent(const Operand &x) { return ((x.runs - 1) * x.ld + x.length) * x.size; }
Spans matrices_of(const Operand &x) {
  Spans out;
  for (auto *p : x.matrices) out.emplace_back((uintptr_t)p, (uintptr_t)p + extent(x));
  return out;
}
Spans runs_of(const Operand &x) {
  Spans out;
  for (auto *p : x.matrices)
    for (long i = 0; i < x.runs; i++) out.emplace_back((uintptr_t)p + i * x.ld * x.size, (uintptr_t)p + (i * x.ld + x.length) * x.size);
  return out;
}
Spans box_of(const Operand &x) {                 // a quick way to see that nothing overlaps
  Spans all = matrices_of(x);
  for (auto &s : all) all[0] = {std::min(all[0].first, s.first), std::max(all[0].second, s.second)};
  return {all[0]};
}
bool overlap(Spans a, const Spans &b) {
  std::sort(a.begin(), a.end(), [](auto &x, auto &y) { return x.second < y.second; });
  return std::any_of(b.begin(), b.end(), [&](auto &y) {      // a's spans do not overlap each other, so both ends ascend
    auto x = std::upper_bound(a.begin(), a.end(), y.first, [](uintptr_t begin, auto &span) { return begin < span.second; });
    return x != a.end() && x->first < y.second;
  });
}
bool overlap_each_other(Spans a) {
  std::sort(a.begin(), a.end());
  return std::adjacent_find(a.begin(), a.end(), [](auto &x, auto &y) { return y.first < x.second; }) != a.end();
}

// Ends a running operation whose operands leave their allocation or are not aligned to their elements, and one whose
// output overlaps itself or an input: a GPU computes something undefined then.
void check_operands(const Operand &out, const std::vector<Operand> &in) {
  std::vector<Operand> all = in;
  all.push_back(out);
  for (auto &x : all)
    for (auto *p : x.matrices) {
      if (std::string why = outside(p, extent(x)); !why.empty()) fault(illegalAddress, std::string("matrix ") + x.name + ": " + why);
      if ((uintptr_t)p % x.size) fault(misalignedAddress, std::string("matrix ") + x.name + " is not aligned to its elements");
    }
  if (overlap_each_other(matrices_of(out)) && overlap_each_other(runs_of(out)))
    fault(launchFailure, std::string("the matrices ") + out.name + " of the batch overlap each other");
  for (auto &x : in)
    if (overlap(box_of(out), box_of(x)) && overlap(runs_of(out), runs_of(x))) fault(launchFailure, std::string("matrix ") + out.name + " overlaps matrix " + x.name);
}

// op: 0 as is, 1 transposed, 2 conjugate-transposed, 3 conjugate
template <class S, class Acc> Acc element(const S *p, long ld, int op, long i, long j) {
  Acc v = (Acc)p[op == 1 || op == 2 ? i * ld + j : j * ld + i];
  return op >= 2 ? conjugate(v) : v;
}

// op(a) op(b), m by n, before alpha, beta and rounding
template <class SA, class Acc>
std::vector<Acc> product(int opa, int opb, long m, long n, long k, const SA *a, long lda, const SA *b, long ldb, bool use_tf32) {
  constexpr long block = 256, columns = 4;
  std::vector<Acc> pa(block * block), pb(block * n), sum(m * n, Acc(0));
  for (long p0 = 0; p0 < k; p0 += block) {
    long np = std::min(block, k - p0);
    for (long j = 0; j < n; j++)
      for (long p = 0; p < np; p++) pb[j * block + p] = element<SA, Acc>(b, ldb, opb, p0 + p, j);
    if constexpr (std::is_same<SA, float>::value) if (use_tf32) for (auto &v : pb) v = tf32(v);
    for (long i0 = 0; i0 < m; i0 += block) {
      long ni = std::min(block, m - i0);
      for (long p = 0; p < np; p++)
        for (long i = 0; i < ni; i++) pa[p * block + i] = element<SA, Acc>(a, lda, opa, i0 + i, p0 + p);
      if constexpr (std::is_same<SA, float>::value) if (use_tf32) for (auto &v : pa) v = tf32(v);
      for (long j = 0; j < n; j += columns) {
        if (j + columns <= n) {
          Acc *__restrict s0 = &sum[j * m + i0], *__restrict s1 = s0 + m, *__restrict s2 = s1 + m, *__restrict s3 = s2 + m;
          for (long p = 0; p < np; p++) {
            const Acc *__restrict x = &pa[p * block];
            Acc y0 = pb[j * block + p], y1 = pb[(j + 1) * block + p], y2 = pb[(j + 2) * block + p], y3 = pb[(j + 3) * block + p];
            for (long i = 0; i < ni; i++) s0[i] += x[i] * y0, s1[i] += x[i] * y1, s2[i] += x[i] * y2, s3[i] += x[i] * y3;
          }
        } else
          for (long q = j; q < n; q++)
            for (long p = 0; p < np; p++)
              for (long i = 0; i < ni; i++) sum[q * m + i0 + i] += pa[p * block + i] * pb[q * block + p];
      }
    }
  }
  return sum;
}

template <class SA, class SC, class Acc>
void multiply(int opa, int opb, long m, long n, long k, Acc alpha, const SA *a, long lda, const SA *b, long ldb, Acc beta,
              SC *c, long ldc, bool use_tf32) {
  std::vector<Acc> sum = product<SA, Acc>(opa, opb, m, n, k, a, lda, b, ldb, use_tf32);
  for (long j = 0; j < n; j++)
    for (long i = 0; i < m; i++) {               // C is not read when beta is zero
      SC &out = c[j * ldc + i];
      out = beta == Acc(0) ? SC(alpha * sum[j * m + i]) : SC(alpha * sum[j * m + i] + beta * (Acc)out);
    }
}

}  // namespace
