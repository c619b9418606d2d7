// Replaces code that CuPy's wheel contains compiled for GPUs only: sorting (Thrust) and the common
// distributions of cupy.random.Generator. The functions have the signatures of CuPy's own.
#include "core.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <sys/types.h>

using namespace emu;

namespace {

using Shape = std::vector<ptrdiff_t>;

struct half { _Float16 v; };
// NumPy's order: NaN last, complex numbers by real part first.
template <class T> bool less(T a, T b) { return a < b || (b != b && a == a); }
bool less(half a, half b) { return less((float)a.v, (float)b.v); }
template <class T> bool less(std::complex<T> a, std::complex<T> b) {
  return less(a.real(), b.real()) || (!less(b.real(), a.real()) && less(a.imag(), b.imag()));
}

template <class F> void with_type(int type, F f) {
  switch (type) {
    case 0: return f((signed char *)0); case 1: return f((unsigned char *)0);
    case 2: return f((short *)0); case 3: return f((unsigned short *)0);
    case 4: return f((int *)0); case 5: return f((unsigned *)0);
    case 6: return f((long *)0); case 7: return f((unsigned long *)0);
    case 8: return f((half *)0); case 9: return f((float *)0); case 10: return f((double *)0);
    case 11: return f((std::complex<float> *)0); case 12: return f((std::complex<double> *)0);
    case 13: return f((unsigned char *)0);
  }
}

void submit(const char *name, intptr_t stream, std::function<void()> work) {
  if (enqueue((void *)stream, "launches", name, [=] { return run_guarded(name, work); })) throw std::runtime_error(std::string(name) + " failed");
}

// The state of a generator is a seed and a counter in device memory.
template <class T, class F> void draw(const char *name, intptr_t state, intptr_t out, ssize_t n, intptr_t stream, F f) {
  submit(name, stream, [=] {
    auto *s = (uint64_t *)state;
    for (ssize_t i = 0; i < n; i++) {
      auto bits = [&] {                          // SplitMix64
        uint64_t z = s[0] * 0xD1342543DE82EF95ull + ++s[1] * 0x9E3779B97F4A7C15ull;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        return z ^ (z >> 31);
      };
      ((T *)out)[i] = f(bits);
    }
  });
}
template <class B> double uniform(B &bits) { return (bits() >> 11) * 0x1p-53; }
template <class B> double normal(B &bits) { double u = 1 - uniform(bits); return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * uniform(bits)); }
template <class B, class T> T below(B &bits, T most, T mask) { T v; do v = (T)bits() & mask; while (v > most); return v; }

}  // namespace

void thrust_sort(int type, void *data, size_t *, const Shape &shape, intptr_t stream, void *) {
  submit("thrust_sort", stream, [=] {
    with_type(type, [&](auto *t) {
      auto *p = (decltype(t))data;
      size_t row = shape.back(), rows = std::accumulate(shape.begin(), shape.end() - 1, (size_t)1, std::multiplies<size_t>());
      for (size_t r = 0; r < rows; r++) std::stable_sort(p + r * row, p + (r + 1) * row, [](auto a, auto b) { return less(a, b); });
    });
  });
}
void thrust_argsort(int type, size_t *index, void *data, void *, const Shape &shape, intptr_t stream, void *) {
  submit("thrust_argsort", stream, [=] {
    with_type(type, [&](auto *t) {
      auto *p = (decltype(t))data;
      size_t row = shape.back(), rows = std::accumulate(shape.begin(), shape.end() - 1, (size_t)1, std::multiplies<size_t>());
      for (size_t r = 0; r < rows; r++) {
        std::iota(index + r * row, index + (r + 1) * row, (size_t)0);
        std::stable_sort(index + r * row, index + (r + 1) * row, [=](size_t a, size_t b) { return less(p[r * row + a], p[r * row + b]); });
      }
    });
  });
}
void thrust_lexsort(int type, size_t *index, void *keys, size_t k, size_t n, intptr_t stream, void *) {
  submit("thrust_lexsort", stream, [=] {
    with_type(type, [&](auto *t) {
      auto *p = (decltype(t))keys;
      std::iota(index, index + n, (size_t)0);
      for (size_t i = 0; i < k; i++)
        std::stable_sort(index, index + n, [=](size_t a, size_t b) { return less(p[i * n + a], p[i * n + b]); });
    });
  });
}

void init_curand_generator(int, intptr_t state, uint64_t seed, ssize_t, intptr_t stream) {
  submit("init_curand", stream, [=] { ((uint64_t *)state)[0] = seed, ((uint64_t *)state)[1] = 0; });
}
#define DRAW(NAME, T, EXPRESSION) \
  void NAME(int, intptr_t state, ssize_t, intptr_t out, ssize_t n, intptr_t stream) { draw<T>(#NAME, state, out, n, stream, [](auto &bits) { return (T)(EXPRESSION); }); }
DRAW(random_uniform, double, uniform(bits))
DRAW(random_uniform_float, float, (bits() >> 40) * 0x1p-24)
DRAW(raw, int, bits())
DRAW(exponential, double, -std::log(1 - uniform(bits)))
DRAW(standard_normal, double, normal(bits))
DRAW(standard_normal_float, float, normal(bits))
void interval_32(int, intptr_t state, ssize_t, intptr_t out, ssize_t n, intptr_t stream, uint32_t most, uint32_t mask) {
  draw<uint32_t>("interval_32", state, out, n, stream, [=](auto &bits) { return below(bits, most, mask); });
}
void interval_64(int, intptr_t state, ssize_t, intptr_t out, ssize_t n, intptr_t stream, uint64_t most, uint64_t mask) {
  draw<uint64_t>("interval_64", state, out, n, stream, [=](auto &bits) { return below(bits, most, mask); });
}
