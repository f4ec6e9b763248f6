// relu(m * a + b), one a and one b a channel, with its derivative and the derivative of that.
#include "common.h"

#include <ATen/ops/sum.h>
#include <torch/library.h>

namespace {
constexpr int64_t BLOCKS = 16;  // of locations; fixed, so that sums do not depend on the number of threads

// f(first location, one past the last, block) for each block.
template <typename F> void by_blocks(int64_t locations, F&& f) {
  const int64_t step = (locations + BLOCKS - 1) / BLOCKS;
  at::parallel_for(0, BLOCKS, 1, [&](int64_t from, int64_t to) {
    for (int64_t k = from; k < to; ++k) f(std::min(locations, k * step), std::min(locations, (k + 1) * step), k);
  });
}

Tensor affine_relu(const Tensor& input, const Tensor& a_, const Tensor& b_) {
  const Tensor m = rows_first(input), a = a_.contiguous(), b = b_.contiguous();
  const int64_t c = m.size(1);
  Tensor out = channels_last(m.sizes(), m.options());
  by_type(m, [&](auto zero) {
    using T = decltype(zero);
    const T *mp = m.const_data_ptr<T>(), *ap = a.const_data_ptr<T>(), *bp = b.const_data_ptr<T>();
    T* op = out.data_ptr<T>();
    by_blocks(m.numel() / c, [&](int64_t from, int64_t to, int64_t) {
      for (int64_t r = from; r < to; ++r)
#pragma GCC ivdep
        for (int64_t q = 0; q < c; ++q) {
          const T v = mp[r * c + q] * ap[q] + bp[q];
          op[r * c + q] = v <= 0 ? T(0) : v;
        }
    });
  });
  return out;
}

// Gradients in m, a and b; the last two only where sums are wanted, and empty otherwise.
std::tuple<Tensor, Tensor, Tensor> affine_relu_backward(const Tensor& gradient, const Tensor& input, const Tensor& a_, const Tensor& b_, bool wanted) {
  const Tensor g = rows_first(gradient), m = rows_first(input), a = a_.contiguous(), b = b_.contiguous();
  const int64_t c = m.size(1);
  Tensor of_m = channels_last(m.sizes(), m.options()), part = at::zeros({wanted ? BLOCKS : 0, 2, c}, m.options());
  by_type(m, [&](auto zero) {
    using T = decltype(zero);
    const T *gp = g.const_data_ptr<T>(), *mp = m.const_data_ptr<T>(), *ap = a.const_data_ptr<T>(), *bp = b.const_data_ptr<T>();
    T *op = of_m.data_ptr<T>(), *sums = part.data_ptr<T>();
    by_blocks(m.numel() / c, [&](int64_t from, int64_t to, int64_t block) {
      T *of_a = sums + 2 * block * c, *of_b = of_a + c;
      for (int64_t r = from; r < to; ++r) {
        const T *gr = gp + r * c, *mr = mp + r * c;
        T* o = op + r * c;
        if (wanted) {
#pragma GCC ivdep
          for (int64_t q = 0; q < c; ++q) {
            const T v = mr[q] * ap[q] + bp[q] <= 0 ? T(0) : gr[q];
            o[q] = v * ap[q];
            of_a[q] += v * mr[q];
            of_b[q] += v;
          }
        } else {
#pragma GCC ivdep
          for (int64_t q = 0; q < c; ++q) o[q] = mr[q] * ap[q] + bp[q] <= 0 ? T(0) : gr[q] * ap[q];
        }
      }
    });
  });
  const Tensor total = part.sum(0);
  return {of_m, total.select(0, 0), total.select(0, 1)};
}

// What the backward above does with (g, m, a), differentiated: gradients in these from those in its three results (u, ua, ub).
std::tuple<Tensor, Tensor, Tensor> affine_relu_double(const Tensor& incoming, const Tensor& ua_, const Tensor& ub_, const Tensor& gradient, const Tensor& input,
                                                      const Tensor& a_, const Tensor& b_) {
  const Tensor u = rows_first(incoming), g = rows_first(gradient), m = rows_first(input), a = a_.contiguous(), b = b_.contiguous();
  const Tensor ua = ua_.contiguous(), ub = ub_.contiguous();
  const int64_t c = m.size(1);
  Tensor of_g = channels_last(m.sizes(), m.options()), of_m = channels_last(m.sizes(), m.options()), part = at::zeros({BLOCKS, c}, m.options());
  by_type(m, [&](auto zero) {
    using T = decltype(zero);
    const T *up = u.const_data_ptr<T>(), *gp = g.const_data_ptr<T>(), *mp = m.const_data_ptr<T>(), *ap = a.const_data_ptr<T>(), *bp = b.const_data_ptr<T>();
    const T *uap = ua.const_data_ptr<T>(), *ubp = ub.const_data_ptr<T>();
    T *gop = of_g.data_ptr<T>(), *mop = of_m.data_ptr<T>(), *sums = part.data_ptr<T>();
    by_blocks(m.numel() / c, [&](int64_t from, int64_t to, int64_t block) {
      T* of_a = sums + block * c;
      for (int64_t r = from; r < to; ++r) {
        const T *ur = up + r * c, *gr = gp + r * c, *mr = mp + r * c;
        T *go = gop + r * c, *mo = mop + r * c;
#pragma GCC ivdep
        for (int64_t q = 0; q < c; ++q) {
          const bool off = mr[q] * ap[q] + bp[q] <= 0;
          const T v = off ? T(0) : gr[q], moved = ap[q] * ur[q] + uap[q] * mr[q] + ubp[q];
          go[q] = off ? T(0) : moved;
          mo[q] = v * uap[q];
          of_a[q] += v * ur[q];
        }
      }
    });
  });
  return {of_g, of_m, part.sum(0)};
}
}  // namespace

TORCH_LIBRARY_FRAGMENT(fewshot_nsl_kernels, library) {
  library.def("affine_relu(Tensor m, Tensor a, Tensor b) -> Tensor", affine_relu);
  library.def("affine_relu_backward(Tensor g, Tensor m, Tensor a, Tensor b, bool wanted) -> (Tensor, Tensor, Tensor)", affine_relu_backward);
  library.def("affine_relu_double(Tensor u, Tensor ua, Tensor ub, Tensor g, Tensor m, Tensor a, Tensor b) -> (Tensor, Tensor, Tensor)", affine_relu_double);
}
