// The cuRAND host API on a counter-based generator. The numbers are not those of cuRAND.
#include "core.h"

#include <cmath>
#include <cstring>

using namespace emu;

namespace {
struct Generator { void *stream = nullptr; uint64_t seed = 0, offset = 0; };

uint64_t bits(uint64_t seed, uint64_t i) {       // SplitMix64
  uint64_t z = seed * 0xD1342543DE82EF95ull + (i + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}
double uniform(uint64_t seed, uint64_t i) { return ((bits(seed, i) >> 11) + 1) * 0x1p-53; }   // (0, 1]
double normal(uint64_t seed, uint64_t i) {
  return std::sqrt(-2 * std::log(uniform(seed, 2 * i))) * std::cos(6.283185307179586 * uniform(seed, 2 * i + 1));
}

template <class T, class F> int fill(Generator *g, const char *name, T *out, size_t n, F f) {
  uint64_t seed = g->seed, first = g->offset;
  g->offset += n;
  return enqueue(g->stream, "curand", name, [=] {
    return run_guarded(name, [=] { for (size_t i = 0; i < n; i++) out[i] = (T)f(seed, first + i); });
  }) ? 201 : 0;
}
}

extern "C" {
int curandCreateGenerator(Generator **g, int) { *g = new Generator; return 0; }
int curandDestroyGenerator(Generator *g) { delete g; return 0; }
int curandGetVersion(int *v) { *v = 10400; return 0; }
int curandSetStream(Generator *g, void *s) { g->stream = s; return 0; }
int curandSetPseudoRandomGeneratorSeed(Generator *g, unsigned long long seed) { g->seed = seed, g->offset = 0; return 0; }
int curandSetGeneratorOffset(Generator *g, unsigned long long offset) { g->offset = offset; return 0; }
int curandSetGeneratorOrdering(Generator *, int) { return 0; }
int curandGenerate(Generator *g, unsigned *out, size_t n) { return fill(g, "curandGenerate", out, n, [](uint64_t s, uint64_t i) { return bits(s, i) >> 32; }); }
int curandGenerateLongLong(Generator *g, uint64_t *out, size_t n) { return fill(g, "curandGenerateLongLong", out, n, bits); }
// Rounding to float must not leave (0, 1].
int curandGenerateUniform(Generator *g, float *out, size_t n) { return fill(g, "curandGenerateUniform", out, n, [](uint64_t s, uint64_t i) { return ((bits(s, i) >> 40) + 1) * 0x1p-24; }); }
int curandGenerateUniformDouble(Generator *g, double *out, size_t n) { return fill(g, "curandGenerateUniformDouble", out, n, uniform); }
int curandGenerateNormal(Generator *g, float *out, size_t n, float mean, float sd) { return n % 2 ? 105 : fill(g, "curandGenerateNormal", out, n, [=](uint64_t s, uint64_t i) { return mean + sd * normal(s, i); }); }
int curandGenerateNormalDouble(Generator *g, double *out, size_t n, double mean, double sd) { return n % 2 ? 105 : fill(g, "curandGenerateNormalDouble", out, n, [=](uint64_t s, uint64_t i) { return mean + sd * normal(s, i); }); }
int curandGenerateLogNormal(Generator *g, float *out, size_t n, float mean, float sd) { return n % 2 ? 105 : fill(g, "curandGenerateLogNormal", out, n, [=](uint64_t s, uint64_t i) { return std::exp(mean + sd * normal(s, i)); }); }
int curandGenerateLogNormalDouble(Generator *g, double *out, size_t n, double mean, double sd) { return n % 2 ? 105 : fill(g, "curandGenerateLogNormalDouble", out, n, [=](uint64_t s, uint64_t i) { return std::exp(mean + sd * normal(s, i)); }); }
int curandGeneratePoisson(Generator *g, unsigned *out, size_t n, double lambda) {
  return fill(g, "curandGeneratePoisson", out, n, [=](uint64_t s, uint64_t i) {
    if (lambda > 500) return std::fmax(0, std::round(lambda + std::sqrt(lambda) * normal(s, i)));
    double p = std::exp(-lambda), sum = p, u = uniform(s, i), k = 0;
    while (u > sum && k < 2000) sum += p *= lambda / ++k;
    return k;
  });
}
}
