// 2x2 max-pooling, the moments of what is pooled, and the straight line and ReLU that follow: values and two derivatives.
#include "common.h"

#include <torch/library.h>

namespace {

std::tuple<Tensor, Tensor> pool(const Tensor& input) {
  const Tensor z = rows_first(input);
  const int64_t n = z.size(0), c = z.size(1), H = z.size(2), W = z.size(3), h = H / 2, w = W / 2;
  Tensor m = channels_last({n, c, h, w}, z.options()), place = channels_last({n, c, h, w}, z.options().dtype(at::kByte));
  by_type(z, [&](auto zero) {
    using T = decltype(zero);
    const T* zp = z.const_data_ptr<T>();
    T* mp = m.data_ptr<T>();
    Place* pp = place.data_ptr<Place>();
    at::parallel_for(0, n * h, 1 + GRAIN / (4 * w * c + 1), [&](int64_t from, int64_t to) {
      for (int64_t r = from; r < to; ++r) {
        const T* top = zp + ((r / h) * H + 2 * (r % h)) * W * c;
        for (int64_t j = 0; j < w; ++j) {
          const T *a = top + 2 * j * c, *b = a + W * c;
          largest(a, a + c, b, b + c, mp + (r * w + j) * c, pp + (r * w + j) * c, c);
        }
      }
    });
  });
  return {m, place};
}

// Each g at its place in [H, W], zeros elsewhere; with a scale, plus z * scale + shift everywhere.
Tensor unpool(const Tensor& gradient, const Tensor& place, int64_t H, int64_t W, const std::optional<Tensor>& z_, const std::optional<Tensor>& scale_,
              const std::optional<Tensor>& shift_) {
  const Tensor g = rows_first(gradient);
  const bool dense = z_.has_value();
  const Tensor z = dense ? rows_first(*z_) : g, scale = dense ? scale_->contiguous() : g, shift = dense ? shift_->contiguous() : g;
  const int64_t n = g.size(0), c = g.size(1), h = g.size(2), w = g.size(3);
  Tensor out = channels_last({n, c, H, W}, g.options());
  by_type(g, [&](auto zero) {
    using T = decltype(zero);
    const T *gp = g.const_data_ptr<T>(), *zp = z.const_data_ptr<T>(), *sp = scale.const_data_ptr<T>(), *tp = shift.const_data_ptr<T>();
    const Place* pp = place.const_data_ptr<Place>();
    T* op = out.data_ptr<T>();
    at::parallel_for(0, n * H, 1 + GRAIN / (W * c), [&](int64_t from, int64_t to) {
      for (int64_t r = from; r < to; ++r) {
        T* row = op + r * W * c;
        if (dense) {
          const T* zr = zp + r * W * c;
          for (int64_t j = 0; j < W; ++j)
#pragma GCC ivdep
            for (int64_t q = 0; q < c; ++q) row[j * c + q] = zr[j * c + q] * sp[q] + tp[q];
        } else {
          std::memset(row, 0, W * c * sizeof(T));
        }
        const int64_t i = r % H / 2;
        if (i >= h) continue;
        const int64_t base = ((r / H) * h + i) * w * c;
        const Place left = 2 * (r % H % 2), right = left + 1;
        for (int64_t j = 0; j < w; ++j) {
          const T* gi = gp + base + j * c;
          const Place* pi = pp + base + j * c;
          T *a = row + 2 * j * c, *b = a + c;
#pragma GCC ivdep
          for (int64_t q = 0; q < c; ++q) {
            a[q] += pi[q] == left ? gi[q] : T(0);
            b[q] += pi[q] == right ? gi[q] : T(0);
          }
        }
      }
    });
  });
  return out;
}

// The numbers of u at the places.
Tensor pick(const Tensor& input, const Tensor& place) {
  const Tensor u = rows_first(input);
  const int64_t n = u.size(0), c = u.size(1), H = u.size(2), W = u.size(3), h = H / 2, w = W / 2;
  Tensor out = channels_last({n, c, h, w}, u.options());
  by_type(u, [&](auto zero) {
    using T = decltype(zero);
    const T* up = u.const_data_ptr<T>();
    T* op = out.data_ptr<T>();
    const Place* pp = place.const_data_ptr<Place>();
    at::parallel_for(0, n * h, 1 + GRAIN / (4 * w * c + 1), [&](int64_t from, int64_t to) {
      for (int64_t r = from; r < to; ++r) {
        const T* top = up + ((r / h) * H + 2 * (r % h)) * W * c;
        for (int64_t j = 0; j < w; ++j) {
          const T *u0 = top + 2 * j * c, *u1 = u0 + c, *u2 = u0 + W * c, *u3 = u2 + c;
          T* o = op + (r * w + j) * c;
          const Place* p = pp + (r * w + j) * c;
#pragma GCC ivdep
          for (int64_t q = 0; q < c; ++q) {
            const T a = p[q] & 1 ? u1[q] : u0[q], b = p[q] & 1 ? u3[q] : u2[q];
            o[q] = p[q] & 2 ? b : a;
          }
        }
      }
    });
  });
  return out;
}

// For each channel the sums of u and of (u - centre) * (z - mean). Image by image, so that they do not depend on the number of threads.
template <typename T>
void sums(const T* u, const T* centre, const T* z, const T* mean, T* of_u, T* of_product, int64_t n, int64_t locations, int64_t c) {
  std::vector<T> part(2 * n * c, T(0));
  at::parallel_for(0, n, 1 + GRAIN / (locations * c), [&](int64_t from, int64_t to) {
    for (int64_t r = from * locations; r < to * locations; ++r) {
      T *a = part.data() + (r / locations) * 2 * c, *b = a + c;
#pragma GCC ivdep
      for (int64_t q = 0; q < c; ++q) {
        a[q] += u[r * c + q];
        b[q] += (u[r * c + q] - centre[q]) * (z[r * c + q] - mean[q]);
      }
    }
  });
  for (int64_t i = 0; i < n; ++i)
    for (int64_t q = 0; q < c; ++q) {
      of_u[q] += part[2 * i * c + q];
      of_product[q] += part[(2 * i + 1) * c + q];
    }
}

// Mean and (biased) variance of each channel.
std::tuple<Tensor, Tensor> moments(const Tensor& input) {
  const Tensor z = rows_first(input);
  const int64_t n = z.size(0), c = z.size(1), locations = z.size(2) * z.size(3);
  Tensor mean = at::zeros({c}, z.options()), variance = at::zeros({c}, z.options());
  by_type(z, [&](auto zero) {
    using T = decltype(zero);
    const T* zp = z.const_data_ptr<T>();
    T *m = mean.data_ptr<T>(), *v = variance.data_ptr<T>();
    std::vector<T> none(c, T(0)), unused(c, T(0));
    sums(zp, none.data(), zp, none.data(), m, unused.data(), n, locations, c);
    for (int64_t q = 0; q < c; ++q) m[q] /= T(n * locations);
    sums(zp, m, zp, m, unused.data(), v, n, locations, c);
    for (int64_t q = 0; q < c; ++q) v[q] /= T(n * locations);
  });
  return {mean, variance};
}

// The sums over each channel of u and of u * (z - mean).
std::tuple<Tensor, Tensor> products(const Tensor& u_, const Tensor& z_, const Tensor& mean_) {
  const Tensor u = rows_first(u_), z = rows_first(z_), mean = mean_.contiguous();
  const int64_t n = z.size(0), c = z.size(1), locations = z.size(2) * z.size(3);
  Tensor of_u = at::zeros({c}, z.options()), of_product = at::zeros({c}, z.options());
  by_type(z, [&](auto zero) {
    using T = decltype(zero);
    const std::vector<T> none(c, T(0));
    sums(u.const_data_ptr<T>(), none.data(), z.const_data_ptr<T>(), mean.const_data_ptr<T>(), of_u.data_ptr<T>(), of_product.data_ptr<T>(), n, locations, c);
  });
  return {of_u, of_product};
}
}  // namespace

TORCH_LIBRARY_FRAGMENT(fewshot_nsl_kernels, library) {
  library.def("pool(Tensor z) -> (Tensor, Tensor)", pool);
  library.def("unpool(Tensor g, Tensor place, int h, int w, Tensor? z, Tensor? scale, Tensor? shift) -> Tensor", unpool);
  library.def("pick(Tensor u, Tensor place) -> Tensor", pick);
  library.def("moments(Tensor z) -> (Tensor, Tensor)", moments);
  library.def("products(Tensor u, Tensor z, Tensor mean) -> (Tensor, Tensor)", products);
}
