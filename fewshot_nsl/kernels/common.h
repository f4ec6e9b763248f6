// What the kernels share. All images are [n, h, w, c] in memory: a location's channels lie together, those of all tasks side by side.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <tuple>
#include <vector>

using at::Tensor;
using Place = uint8_t;  // of a 2x2 window: 0 1 above, 2 3 below

constexpr int64_t GRAIN = 32768;  // numbers that are worth a thread
constexpr int64_t PARTS = 8;      // of the images, in sums over them; fixed, so that sums do not depend on the number of threads

template <typename T> struct Int;
template <> struct Int<float> { using type = int32_t; };
template <> struct Int<double> { using type = int64_t; };

// 64 bytes of numbers, which the compiler splits where the processor has less.
template <typename T> struct Wide {
  static constexpr int64_t lanes = 64 / sizeof(T);
  typedef T type __attribute__((vector_size(64), aligned(8), may_alias));
  typedef typename Int<T>::type ints __attribute__((vector_size(64)));
  typedef Place places __attribute__((vector_size(64 / sizeof(T)), aligned(1), may_alias));
};

// A vector that begins where a cache line does.
template <typename T> struct AtLine {
  using value_type = T;
  AtLine() = default;
  template <typename U> AtLine(const AtLine<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t{64})); }
  void deallocate(T* p, size_t) { ::operator delete(p, std::align_val_t{64}); }
  bool operator==(const AtLine&) const { return true; }
};
template <typename T> using Numbers = std::vector<T, AtLine<T>>;

inline Tensor channels_last(at::IntArrayRef sizes, const at::TensorOptions& options) {
  return at::empty(sizes, options.memory_format(at::MemoryFormat::ChannelsLast));
}
inline Tensor rows_first(const Tensor& t) { return t.contiguous(at::MemoryFormat::ChannelsLast); }

// Calls f with a zero of the tensor's type.
template <typename F> void by_type(const Tensor& t, F&& f) {
  if (t.scalar_type() == at::kDouble) return f(double(0));
  TORCH_CHECK(t.scalar_type() == at::kFloat, "expected float32 or float64, got ", t.scalar_type());
  f(float(0));
}

// The largest of four, and where it is: the first of equals, as max_pool2d has it; not a number wins.
template <typename T>
inline void largest(const T* z0, const T* z1, const T* z2, const T* z3, T* m, Place* place, int64_t count) {
  using V = typename Wide<T>::type;
  using I = typename Wide<T>::ints;
  constexpr int64_t L = Wide<T>::lanes;
  int64_t i = 0;
  for (; i + L <= count; i += L) {
    const V v0 = *(const V*)(z0 + i), v1 = *(const V*)(z1 + i), v2 = *(const V*)(z2 + i), v3 = *(const V*)(z3 + i);
    const I right = (v1 > v0) | (v1 != v1), low = (v3 > v2) | (v3 != v3);
    const V a = right ? v1 : v0, b = low ? v3 : v2;
    const I below = (b > a) | (b != b), one = I{} + 1;
    const I where = below ? (low ? one + 2 : one + 1) : (right ? one : I{});
    *(V*)(m + i) = below ? b : a;
    *(typename Wide<T>::places*)(place + i) = __builtin_convertvector(where, typename Wide<T>::places);
  }
  for (; i < count; ++i) {
    const bool right = z1[i] > z0[i] || z1[i] != z1[i], low = z3[i] > z2[i] || z3[i] != z3[i];
    const T a = right ? z1[i] : z0[i], b = low ? z3[i] : z2[i];
    const bool below = b > a || b != b;
    place[i] = below ? (low ? 3 : 2) : (right ? 1 : 0);
    m[i] = below ? b : a;
  }
}
