// Convolution and 2x2 max-pooling in one, where the images need no gradient: 3x3 kernels, padding 1, few channels in, every task's own weights.
//
// What is not pooled never reaches memory. Four neighbours are computed in registers and one of them is kept; its place is remembered, and
// the derivatives visit that place alone.
#include "common.h"

#include <torch/library.h>

namespace {

// One image, its channels by task, zeros around: [h, w, tasks * c] -> [tasks, h + 2, w + 2, c].
template <typename T> void padded_images(const T* x, T* out, int64_t H, int64_t W, int64_t tasks, int64_t c) {
  const int64_t row = (W + 2) * c;
  std::memset(out, 0, tasks * (H + 2) * row * sizeof(T));
  for (int64_t t = 0; t < tasks; ++t, x += c, out += (H + 2) * row)
    for (int64_t y = 0; y < H; ++y)
      for (int64_t i = 0; i < W; ++i)
        for (int64_t k = 0; k < c; ++k) out[(y + 1) * row + (i + 1) * c + k] = x[(y * W + i) * tasks * c + k];
}

// [tasks * o, c, 3, 3] -> [tasks, blocks of o, 3 rows, 3 * c, wide], zeros where a block is not full.
template <typename T> Numbers<T> by_tap(const Tensor& weight, int64_t tasks, int64_t o, int64_t c, int64_t wide) {
  const int64_t blocks = (o + wide - 1) / wide;
  Numbers<T> out(tasks * blocks * 9 * c * wide, T(0));
  const auto w = weight.accessor<T, 4>();
  for (int64_t t = 0; t < tasks; ++t)
    for (int64_t q = 0; q < o; ++q)
      for (int64_t k = 0; k < c; ++k)
        for (int64_t dy = 0; dy < 3; ++dy)
          for (int64_t dx = 0; dx < 3; ++dx) out[((((t * blocks + q / wide) * 3 + dy) * 3 + dx) * c + k) * wide + q % wide] = w[t * o + q][k][dy][dx];
  return out;
}

// The outputs at the four places of window j in a row of windows: [4, 2] of Wide.
template <typename T> inline void four(const T* padded, const T* kernel, int64_t row, int64_t c, int64_t j, T* out) {
  using V = typename Wide<T>::type;
  constexpr int64_t L = Wide<T>::lanes;
  V a0{}, a1{}, b0{}, b1{}, c0{}, c1{}, d0{}, d1{};
  for (int64_t dy = 0; dy < 3; ++dy) {
    const T *top = padded + dy * row + 2 * j * c, *low = top + row;
    for (int64_t e = 0; e < 3 * c; ++e, kernel += 2 * L) {
      const V k0 = *(const V*)kernel, k1 = *(const V*)(kernel + L);
      a0 += top[e] * k0, a1 += top[e] * k1;
      b0 += top[e + c] * k0, b1 += top[e + c] * k1;
      c0 += low[e] * k0, c1 += low[e] * k1;
      d0 += low[e + c] * k0, d1 += low[e + c] * k1;
    }
  }
  V* v = (V*)out;
  v[0] = a0, v[1] = a1, v[2] = b0, v[3] = b1, v[4] = c0, v[5] = c1, v[6] = d0, v[7] = d1;
}

// The largest of four with its place, or, where places are given, what is there.
template <bool GIVEN> std::tuple<Tensor, Tensor> convolve(const Tensor& images, const Tensor& weight, const Tensor& given, int64_t tasks) {
  const Tensor x = rows_first(images);
  const int64_t n = x.size(0), c = x.size(1) / tasks, H = x.size(2), W = x.size(3), h = H / 2, w = W / 2, o = weight.size(0) / tasks;
  Tensor m = channels_last({n, tasks * o, h, w}, x.options());
  Tensor place = GIVEN ? given : channels_last({n, tasks * o, h, w}, x.options().dtype(at::kByte));
  by_type(x, [&](auto zero) {
    using T = decltype(zero);
    constexpr int64_t wide = 2 * Wide<T>::lanes;
    const int64_t blocks = (o + wide - 1) / wide, row = (W + 2) * c;
    const Numbers<T> kernels = by_tap<T>(weight, tasks, o, c, wide);
    const T* xp = x.const_data_ptr<T>();
    T* mp = m.data_ptr<T>();
    Place* pp = place.data_ptr<Place>();
    at::parallel_for(0, n, 1, [&](int64_t from, int64_t to) {
      std::vector<T> padded(tasks * (H + 2) * row);
      alignas(64) T v[4 * wide];
      for (int64_t image = from; image < to; ++image) {
        padded_images(xp + image * H * W * tasks * c, padded.data(), H, W, tasks, c);
        // All tasks of a line of windows, so that memory is written in its order.
        for (int64_t i = 0; i < h; ++i)
          for (int64_t b = 0; b < tasks * blocks; ++b) {
            const int64_t t = b / blocks, block = b % blocks, count = std::min(wide, o - block * wide);
            for (int64_t j = 0; j < w; ++j) {
              four(padded.data() + (t * (H + 2) + 2 * i) * row, kernels.data() + b * 9 * c * wide, row, c, j, v);
              const int64_t at = (((image * h + i) * w + j) * tasks + t) * o + block * wide;
              if (GIVEN) {
                for (int64_t q = 0; q < count; ++q) {
                  const T a = pp[at + q] & 1 ? v[wide + q] : v[q], b = pp[at + q] & 1 ? v[3 * wide + q] : v[2 * wide + q];
                  mp[at + q] = pp[at + q] & 2 ? b : a;
                }
              } else {
                largest(v, v + wide, v + 2 * wide, v + 3 * wide, mp + at, pp + at, count);
              }
            }
          }
      }
    });
  });
  return {m, place};
}

std::tuple<Tensor, Tensor> first_pool(const Tensor& x, const Tensor& weight, int64_t tasks) { return convolve<false>(x, weight, Tensor(), tasks); }

Tensor first_pick(const Tensor& x, const Tensor& weight, const Tensor& place, int64_t tasks) {
  return std::get<0>(convolve<true>(x, weight, place, tasks));
}

// A window's gradients, each in the line of its place: [4, 2] of Wide, zeros elsewhere. What lies beyond count stays as it is.
template <typename T> inline void spread(const T* g, const Place* place, int64_t count, T* line) {
  using V = typename Wide<T>::type;
  using I = typename Wide<T>::ints;
  constexpr int64_t L = Wide<T>::lanes, wide = 2 * L;
  if (count < wide) {
    for (int s = 0; s < 4; ++s)
      for (int64_t q = 0; q < count; ++q) line[s * wide + q] = place[q] == s ? g[q] : T(0);
    return;
  }
  for (int64_t q = 0; q < wide; q += L) {
    const I at = __builtin_convertvector(*(const typename Wide<T>::places*)(place + q), I);
    const V v = *(const V*)(g + q);
    for (int s = 0; s < 4; ++s) *(V*)(line + s * wide + q) = at == s ? v : V{};
  }
}

// sums[e] += the pixel under tap e, times the gradient, over the four places of each window in a row of windows.
template <int E, typename T> inline void add_taps(T* sums, const T* top, const T* line, int64_t row, int64_t c, int64_t w) {
  using V = typename Wide<T>::type;
  constexpr int64_t L = Wide<T>::lanes;
  V total[E][2];
  for (int e = 0; e < E; ++e) total[e][0] = *(V*)(sums + 2 * e * L), total[e][1] = *(V*)(sums + (2 * e + 1) * L);
  for (int64_t j = 0; j < w; ++j, line += 8 * L, top += 2 * c)
    for (int s = 0; s < 4; ++s) {
      const T* x = top + (s / 2) * row + (s % 2) * c;
      const V g0 = *(const V*)(line + 2 * s * L), g1 = *(const V*)(line + (2 * s + 1) * L);
      for (int e = 0; e < E; ++e) total[e][0] += x[e] * g0, total[e][1] += x[e] * g1;
    }
  for (int e = 0; e < E; ++e) *(V*)(sums + 2 * e * L) = total[e][0], *(V*)(sums + (2 * e + 1) * L) = total[e][1];
}

constexpr int64_t CHUNK = 16; // windows whose gradients stay in the nearest cache

// The gradient in the weights.
Tensor first_weight(const Tensor& gradient, const Tensor& place, const Tensor& images, int64_t tasks) {
  const Tensor g = rows_first(gradient), x = rows_first(images);
  const int64_t n = x.size(0), c = x.size(1) / tasks, H = x.size(2), W = x.size(3), h = H / 2, w = W / 2, o = g.size(1) / tasks;
  Tensor out = at::zeros({tasks * o, c, 3, 3}, x.options());
  by_type(x, [&](auto zero) {
    using T = decltype(zero);
    constexpr int64_t wide = 2 * Wide<T>::lanes;
    const int64_t blocks = (o + wide - 1) / wide, row = (W + 2) * c, size = 9 * c * wide;
    Numbers<T> sums(PARTS * tasks * blocks * size, T(0));
    const T *xp = x.const_data_ptr<T>(), *gp = g.const_data_ptr<T>();
    const Place* pp = place.const_data_ptr<Place>();
    at::parallel_for(0, PARTS, 1, [&](int64_t from, int64_t to) {
      std::vector<T> padded(tasks * (H + 2) * row);
      Numbers<T> line(CHUNK * 4 * wide, T(0));
      for (int64_t part = from; part < to; ++part)
        for (int64_t image = part * n / PARTS; image < (part + 1) * n / PARTS; ++image) {
          padded_images(xp + image * H * W * tasks * c, padded.data(), H, W, tasks, c);
          // All tasks of a line of windows, so that memory is read in its order.
          for (int64_t i = 0; i < h; ++i)
            for (int64_t b = 0; b < tasks * blocks; ++b) {
              const int64_t t = b / blocks, block = b % blocks, count = std::min(wide, o - block * wide);
              for (int64_t j = 0; j < w; j += CHUNK) {
                const int64_t windows = std::min(CHUNK, w - j);
                for (int64_t k = 0; k < windows; ++k) {
                  const int64_t at = (((image * h + i) * w + j + k) * tasks + t) * o + block * wide;
                  spread(gp + at, pp + at, count, line.data() + k * 4 * wide);
                }
                for (int64_t dy = 0; dy < 3; ++dy) {
                  const T* top = padded.data() + (t * (H + 2) + 2 * i + dy) * row + 2 * j * c;
                  T* at = sums.data() + (part * tasks * blocks + b) * size + dy * 3 * c * wide;
                  if (c == 3) add_taps<9>(at, top, line.data(), row, c, windows);
                  else
                    for (int64_t e = 0; e < c; ++e) add_taps<3>(at + 3 * e * wide, top + 3 * e, line.data(), row, c, windows);
                }
              }
            }
        }
    });
    auto result = out.accessor<T, 4>();
    for (int64_t t = 0; t < tasks; ++t)
      for (int64_t part = 0; part < PARTS; ++part)
        for (int64_t q = 0; q < o; ++q)
          for (int64_t k = 0; k < c; ++k)
            for (int64_t dy = 0; dy < 3; ++dy)
              for (int64_t dx = 0; dx < 3; ++dx)
                result[t * o + q][k][dy][dx] += sums[((part * tasks + t) * blocks + q / wide) * size + ((dy * 3 + dx) * c + k) * wide + q % wide];
  });
  return out;
}
}  // namespace

TORCH_LIBRARY_FRAGMENT(fewshot_nsl_kernels, library) {
  library.def("first_pool(Tensor x, Tensor weight, int tasks) -> (Tensor, Tensor)", first_pool);
  library.def("first_pick(Tensor x, Tensor weight, Tensor place, int tasks) -> Tensor", first_pick);
  library.def("first_weight(Tensor g, Tensor place, Tensor x, int tasks) -> Tensor", first_weight);
}
