// Derivatives of a convolution that is pooled 2x2, for many channels: 3x3 kernels, padding 1, every task's own weights.
//
// Three of four outputs are not the largest of their window: nothing depends on them, and no arithmetic is spent on them. A dense convolution
// could not know; here each output channel of each window is visited at its own place, where its nine taps see c input channels that lie
// side by side.
#include "common.h"

#include <torch/library.h>

namespace {

template <typename T> struct Sizes {
  static constexpr int64_t block = 2 * Wide<T>::lanes;  // channels that are computed together; the last block is filled up with zeros
  int64_t n, tasks, c, o, H, W, h, w, blocks;
  int64_t row;  // numbers in a line of a strip
  int64_t corners[4];
  Sizes(int64_t n, int64_t tasks, int64_t c, int64_t o, int64_t H, int64_t W)
      : n(n), tasks(tasks), c(c), o(o), H(H), W(W), h(H / 2), w(W / 2), blocks((c + block - 1) / block), row((W + 2) * block), corners{0, block, row, row + block} {}
  // Number of window (i, 0), channel 0 of task t.
  int64_t window(int64_t image, int64_t i, int64_t t) const { return ((image * h + i) * w * tasks + t) * o; }
  // Where in a strip the taps of a place in window j begin.
  int64_t corner(Place place, int64_t j) const { return corners[place] + 2 * j * block; }
  int64_t used(int64_t b) const { return std::min(block, c - b * block); }
};

// A block of channels, of which `used` are there. Almost always it is full, and then no call.
template <typename T> inline void copy_block(const T* from, T* to, int64_t used) {
  using V = typename Wide<T>::type;
  constexpr int64_t L = Wide<T>::lanes;
  if (used == 2 * L) *(V*)to = *(const V*)from, *(V*)(to + L) = *(const V*)(from + L);
  else std::memcpy(to, from, used * sizeof(T));
}

// For every task and block of channels the four lines of an image that a line of windows sees, zeros around: [tasks, blocks, 4, W + 2, block].
template <typename T> struct Strips {
  const Sizes<T>& s;
  Numbers<T> lines;
  explicit Strips(const Sizes<T>& s) : s(s), lines(s.tasks * s.blocks * 4 * s.row) {}
  T* at(int64_t t, int64_t b) { return lines.data() + (t * s.blocks + b) * 4 * s.row; }
  void clear() { std::fill(lines.begin(), lines.end(), T(0)); }
  // The next line of windows sees the lower two lines again, and two more, which are made zeros.
  void move_up() {
    for (T* strip = lines.data(); strip < lines.data() + lines.size(); strip += 4 * s.row) {
      std::memcpy(strip, strip + 2 * s.row, 2 * s.row * sizeof(T));
      std::memset(strip + 2 * s.row, 0, 2 * s.row * sizeof(T));
    }
  }
  // Line l of the strips from line y of the image, where it has one: all tasks, so that memory is read in its order.
  void read(const T* image, int64_t y, int64_t l) {
    if (y >= s.H) return;
    for (int64_t t = 0; t < s.tasks; ++t)
      for (int64_t b = 0; b < s.blocks; ++b) {
        const T* from = image + (y * s.W * s.tasks + t) * s.c + b * s.block;
        T* to = at(t, b) + l * s.row + s.block;
        for (int64_t x = 0; x < s.W; ++x) copy_block(from + x * s.tasks * s.c, to + x * s.block, s.used(b));
      }
  }
  // What the windows of line i see; to be called for every line in turn.
  void see(const T* image, int64_t i) {
    if (i == 0) clear(), read(image, 0, 1);
    else move_up();
    read(image, 2 * i + 1, 2), read(image, 2 * i + 2, 3);
  }
  // The other way: line y of the image from line l.
  void write(T* image, int64_t y, int64_t l) {
    if (y < 0 || y >= s.H) return;
    for (int64_t t = 0; t < s.tasks; ++t)
      for (int64_t b = 0; b < s.blocks; ++b) {
        const T* from = at(t, b) + l * s.row + s.block;
        T* to = image + (y * s.W * s.tasks + t) * s.c + b * s.block;
        for (int64_t x = 0; x < s.W; ++x) copy_block(from + x * s.block, to + x * s.tasks * s.c, s.used(b));
      }
  }
};

// [tasks * o, c, 3, 3] -> [tasks * o, blocks, 9, block], zeros beyond c.
template <typename T> Numbers<T> by_filter(const Tensor& weight, const Sizes<T>& s) {
  Numbers<T> out(s.tasks * s.o * s.blocks * 9 * s.block, T(0));
  const auto w = weight.accessor<T, 4>();
  for (int64_t q = 0; q < s.tasks * s.o; ++q)
    for (int64_t k = 0; k < s.c; ++k)
      for (int64_t tap = 0; tap < 9; ++tap) out[((q * s.blocks + k / s.block) * 9 + tap) * s.block + k % s.block] = w[q][k][tap / 3][tap % 3];
  return out;
}

// Nine taps of a block of channels, in registers.
template <typename T> struct Taps {
  using V = typename Wide<T>::type;
  static constexpr int64_t L = Wide<T>::lanes;
  V v[9][2];
  explicit Taps(const T* from) {
    for (int k = 0; k < 18; ++k) v[k / 2][k % 2] = *(const V*)(from + k * L);
  }
  void store(T* to) const {
    for (int k = 0; k < 18; ++k) *(V*)(to + k * L) = v[k / 2][k % 2];
  }
  // f(what is held, what the strip has there) for every tap of a place; at its first tap begins `seen`.
  template <typename F> void over(const T* seen, int64_t row, F&& f) {
    for (int dy = 0; dy < 3; ++dy, seen += row)
      for (int k = 0; k < 6; ++k) f(v[3 * dy + k / 2][k % 2], *(const V*)(seen + k * L));
  }
};

// The windows of a line in which a filter has a gradient, and where its taps begin: where ReLU was off there is nothing to add.
template <typename T> inline int64_t list_windows(const Sizes<T>& s, const T* g, const Place* place, T* values, int32_t* corners) {
  const int64_t w = s.w, stride = s.tasks * s.o, step = 2 * s.block;
  const int32_t of_place[4] = {int32_t(s.corners[0]), int32_t(s.corners[1]), int32_t(s.corners[2]), int32_t(s.corners[3])};
  int64_t count = 0;
  for (int64_t j = 0; j < w; ++j, g += stride, place += stride) {
    values[count] = *g, corners[count] = of_place[*place] + int32_t(j * step);
    count += *g != 0;
  }
  return count;
}

// The gradient in the weights.
Tensor weight_at_places(const Tensor& gradient, const Tensor& place, const Tensor& images, int64_t tasks) {
  const Tensor g = rows_first(gradient), x = rows_first(images);
  Tensor out = at::empty({g.size(1), x.size(1) / tasks, 3, 3}, x.options());
  by_type(x, [&](auto zero) {
    using T = decltype(zero);
    using V = typename Wide<T>::type;
    const Sizes<T> s(x.size(0), tasks, x.size(1) / tasks, g.size(1) / tasks, x.size(2), x.size(3));
    const int64_t size = 9 * s.block, stride = tasks * s.o;
    Numbers<T> sums(PARTS * tasks * s.o * s.blocks * size, T(0));
    const T *xp = x.const_data_ptr<T>(), *gp = g.const_data_ptr<T>();
    const Place* pp = place.const_data_ptr<Place>();
    at::parallel_for(0, PARTS, 1, [&](int64_t from, int64_t to) {
      Strips<T> strips(s);
      std::vector<T> values(s.w);
      std::vector<int32_t> corners(s.w);
      for (int64_t part = from; part < to; ++part)
        for (int64_t image = part * s.n / PARTS; image < (part + 1) * s.n / PARTS; ++image)
          for (int64_t i = 0; i < s.h; ++i) {
            strips.see(xp + image * s.H * s.W * tasks * s.c, i);
            for (int64_t q = 0; q < stride; ++q) {
              const int64_t first = (image * s.h + i) * s.w * stride + q, count = list_windows(s, gp + first, pp + first, values.data(), corners.data());
              for (int64_t b = 0; b < s.blocks; ++b) {
                const T* strip = strips.at(q / s.o, b);
                T* sum = sums.data() + ((part * stride + q) * s.blocks + b) * size;
                Taps<T> total(sum);
                for (int64_t k = 0; k < count; ++k) {
                  const T v = values[k];
                  total.over(strip + corners[k], s.row, [&](V& sum, const V& seen) { sum += seen * v; });
                }
                total.store(sum);
              }
            }
          }
    });
    const int64_t all = tasks * s.o * s.blocks * size;
    for (int64_t part = 1; part < PARTS; ++part)
      for (int64_t k = 0; k < all; ++k) sums[k] += sums[part * all + k];
    T* result = out.data_ptr<T>();
    for (int64_t q = 0; q < tasks * s.o; ++q)
      for (int64_t k = 0; k < s.c; ++k)
        for (int64_t tap = 0; tap < 9; ++tap)
          *result++ = sums[(q * s.blocks + k / s.block) * size + tap * s.block + k % s.block];
  });
  return out;
}

// A patch of 4x4 locations, one vector each, plus the listed filters times their gradients; all have the same place in the window.
template <typename T, int PLACE>
inline void add_filters(typename Wide<T>::type* patch, const T* filters, const int32_t* list, int64_t count, const T* g, int64_t blocks) {
  using V = typename Wide<T>::type;
  constexpr int64_t block = 2 * Wide<T>::lanes;
  for (int64_t n = 0; n < count; ++n) {
    const T v = g[list[n]], *filter = filters + list[n] * blocks * 9 * block;
    for (int tap = 0; tap < 9; ++tap) patch[(PLACE / 2 + tap / 3) * 4 + PLACE % 2 + tap % 3] += *(const V*)(filter + tap * block) * v;
  }
}

// The gradient in the images, [H, W].
Tensor input_at_places(const Tensor& gradient, const Tensor& place, const Tensor& weight, int64_t tasks, int64_t H, int64_t W) {
  const Tensor g = rows_first(gradient);
  const int64_t c = weight.size(1);
  Tensor out = channels_last({g.size(0), tasks * c, H, W}, g.options());
  by_type(g, [&](auto zero) {
    using T = decltype(zero);
    using V = typename Wide<T>::type;
    const Sizes<T> s(g.size(0), tasks, c, g.size(1) / tasks, H, W);
    const Numbers<T> filters = by_filter<T>(weight, s);
    const int64_t stride = tasks * s.o;
    const T* gp = g.const_data_ptr<T>();
    const Place* pp = place.const_data_ptr<Place>();
    T* op = out.data_ptr<T>();
    constexpr int64_t L = Wide<T>::lanes;
    at::parallel_for(0, s.n, 1, [&](int64_t from, int64_t to) {
      Strips<T> strips(s);
      // The filters of each window by their place, without those that have no gradient.
      std::vector<int32_t> lists(4 * s.w * s.o), counted(4 * s.w);
      for (int64_t image = from; image < to; ++image) {
        T* out = op + image * H * W * tasks * c;
        strips.clear();
        for (int64_t i = 0; i < s.h; ++i) {
          for (int64_t t = 0; t < tasks; ++t) {
            const int64_t first = s.window(image, i, t);
            for (int64_t j = 0; j < s.w; ++j) {
              int32_t *counts = counted.data() + 4 * j, *list = lists.data() + 4 * j * s.o;
              std::fill(counts, counts + 4, 0);
              for (int64_t q = 0; q < s.o; ++q) {
                const Place p = pp[first + j * stride + q];
                list[p * s.o + counts[p]] = q;
                counts[p] += gp[first + j * stride + q] != 0;
              }
            }
            for (int64_t b = 0; b < s.blocks; ++b)
              for (int half = 0; half < 2; ++half)
                for (int64_t j = 0; j < s.w; ++j) {
                  const T *g = gp + first + j * stride, *f = filters.data() + (t * s.o * s.blocks + b) * 9 * s.block + half * L;
                  const int32_t *counts = counted.data() + 4 * j, *list = lists.data() + 4 * j * s.o;
                  T* corner = strips.at(t, b) + 2 * j * s.block + half * L;
                  V patch[16];
                  for (int k = 0; k < 16; ++k) patch[k] = *(const V*)(corner + k / 4 * s.row + k % 4 * s.block);
                  add_filters<T, 0>(patch, f, list, counts[0], g, s.blocks);
                  add_filters<T, 1>(patch, f, list + s.o, counts[1], g, s.blocks);
                  add_filters<T, 2>(patch, f, list + 2 * s.o, counts[2], g, s.blocks);
                  add_filters<T, 3>(patch, f, list + 3 * s.o, counts[3], g, s.blocks);
                  for (int k = 0; k < 16; ++k) *(V*)(corner + k / 4 * s.row + k % 4 * s.block) = patch[k];
                }
          }
          strips.write(out, 2 * i - 1, 0), strips.write(out, 2 * i, 1);
          strips.move_up();
        }
        // What the last windows see of it, and a last line that no window has.
        for (int64_t y = std::max<int64_t>(2 * s.h - 1, 0); y < H; ++y) strips.write(out, y, y - 2 * s.h + 1);
      }
    });
  });
  return out;
}

template <typename T> inline T sum_of_lanes(const typename Wide<T>::type& v) {
  typedef T Half __attribute__((vector_size(32), may_alias));
  typedef T Quarter __attribute__((vector_size(16), may_alias));
  const Half half = ((const Half*)&v)[0] + ((const Half*)&v)[1];
  const Quarter quarter = ((const Quarter*)&half)[0] + ((const Quarter*)&half)[1];
  T sum = quarter[0];
  for (size_t k = 1; k < 16 / sizeof(T); ++k) sum += quarter[k];
  return sum;
}

// The convolution, at the places alone.
Tensor output_at_places(const Tensor& images, const Tensor& weight, const Tensor& place, int64_t tasks) {
  const Tensor x = rows_first(images);
  Tensor out = channels_last(place.sizes(), x.options());
  by_type(x, [&](auto zero) {
    using T = decltype(zero);
    using V = typename Wide<T>::type;
    const Sizes<T> s(x.size(0), tasks, x.size(1) / tasks, weight.size(0) / tasks, x.size(2), x.size(3));
    const Numbers<T> filters = by_filter<T>(weight, s);
    const int64_t stride = tasks * s.o;
    const T* xp = x.const_data_ptr<T>();
    const Place* pp = place.const_data_ptr<Place>();
    T* op = out.data_ptr<T>();
    at::parallel_for(0, s.n, 1, [&](int64_t from, int64_t to) {
      Strips<T> strips(s);
      for (int64_t image = from; image < to; ++image)
        for (int64_t i = 0; i < s.h; ++i) {
          strips.see(xp + image * s.H * s.W * tasks * s.c, i);
          for (int64_t q = 0; q < stride; ++q)
            for (int64_t b = 0; b < s.blocks; ++b) {
              const int64_t first = (image * s.h + i) * s.w * stride + q;
              const T* strip = strips.at(q / s.o, b);
              Taps<T> filter(filters.data() + (q * s.blocks + b) * 9 * s.block);
              for (int64_t j = 0; j < s.w; ++j) {
                V totals[2]{};
                int k = 0;
                filter.over(strip + s.corner(pp[first + j * stride], j), s.row, [&](const V& tap, const V& seen) { totals[k++ % 2] += tap * seen; });
                T& total = op[first + j * stride];
                total = (b ? total : T(0)) + sum_of_lanes<T>(totals[0] + totals[1]);
              }
            }
        }
    });
  });
  return out;
}
}  // namespace

TORCH_LIBRARY_FRAGMENT(fewshot_nsl_kernels, library) {
  library.def("weight_at_places(Tensor g, Tensor place, Tensor x, int tasks) -> Tensor", weight_at_places);
  library.def("input_at_places(Tensor g, Tensor place, Tensor weight, int tasks, int h, int w) -> Tensor", input_at_places);
  library.def("output_at_places(Tensor x, Tensor weight, Tensor place, int tasks) -> Tensor", output_at_places);
}
