// A Gaussian latent problem of any shape, layout and dtype, and its answer by plain double loops.
//
// The formulas are written out again on purpose: the kernels' own are what is being tested.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "expect.h"
#include "host_tensor.h"
#include "kernels/gaussian_latent.h"
#include "kernels/gaussian_sample.h"
#include "math/philox.h"

namespace test {

struct Case {
  int64_t batch, channels, width, pixels, groups;  // width: W
  Layout layout;
  DType dtype;
  DType x_dtype;
  hvae::StdForm std;
  bool given_eps;
  bool has_x;
  int pad;

  std::string name() const {
    return "B" + std::to_string(batch) + " C" + std::to_string(channels) + " W" +
           std::to_string(width) + " N" + std::to_string(pixels) + " G" + std::to_string(groups) +
           (layout == Layout::kChannelsLast ? " channels-last" : " channels-first") + " dtype " +
           std::to_string(static_cast<int>(dtype)) + " std " +
           std::to_string(static_cast<int>(std)) + (given_eps ? " eps" : "");
  }
  DType kl_dtype() const { return dtype == DType::kFloat64 ? dtype : DType::kFloat32; }
  double tolerance() const { return tolerance_of(dtype); }
};

constexpr double kFloor = 1e-3;

inline double std_of(hvae::StdForm form, double raw) {
  return form == hvae::StdForm::kLog ? std::exp(raw) : kFloor + std::log2(1 + std::exp2(raw));
}

inline double slope_of(hvae::StdForm form, double raw) {
  return form == hvae::StdForm::kLog ? std::exp(raw) : 1 / (1 + std::exp2(-raw));
}

// The inputs, the outputs that a kernel writes, and checks of these.
struct Problem {
  explicit Problem(const Case& c_) : c(c_) {
    const auto tensor = [&](int64_t channels, DType dtype) {
      return HostTensor(c.batch, channels, c.pixels, c.layout, dtype, c.pad);
    };
    const auto sums = [&](DType dtype) {
      return c.groups == 0 ? tensor(c.channels, dtype)
                           : HostTensor(c.batch, c.groups, 1, Layout::kChannelsFirst, dtype, 0);
    };
    q = tensor(2 * c.channels, c.dtype);
    p = tensor(2 * c.channels + c.width, c.dtype);
    x = tensor(c.width, c.x_dtype);
    eps = tensor(c.channels, c.dtype);
    grad_z = tensor(c.channels, c.dtype);
    grad_y = tensor(c.width, c.x_dtype);
    grad_kl = sums(c.kl_dtype());
    uint32_t seed = 1;
    for (HostTensor* input : {&q, &p, &x, &eps, &grad_z, &grad_y, &grad_kl}) input->fill(++seed, 1);
    z = tensor(c.channels, c.dtype);
    y = tensor(c.width, c.x_dtype);
    kl = sums(c.kl_dtype());
    grad_q = tensor(2 * c.channels, c.dtype);
    grad_p = tensor(2 * c.channels + c.width, c.dtype);
  }

  double noise(int64_t b, int64_t channel, int64_t s) const {
    if (c.given_eps) return eps.at(b, channel, s);
    const int64_t e = channel * c.pixels + s;
    const auto n = hvae::normal4<double>(
        hvae::philox4x32(hvae::noise_counter(static_cast<uint32_t>(e / 4), kStream, rng[1] + b),
                         hvae::noise_key(rng[0])));
    const double lanes[4] = {n.x, n.y, n.z, n.w};
    return lanes[e % 4];
  }

  template <typename Common>
  void fill_noise_and_shape(Common& params) {
    params.latent = {c.batch, c.channels, c.pixels, c.layout};
    params.residual_channels = c.width;
    params.std = c.std;
    params.floor = kFloor;
    params.noise.rng = rng;
    params.noise.stream = kStream;
    if (c.given_eps) params.noise.eps = eps.input();
    params.p = p.input();
  }

  hvae::GaussianLatentParams forward_params() {
    hvae::GaussianLatentParams params;
    fill_noise_and_shape(params);
    params.groups = c.groups;
    params.q = q.input();
    params.z = z.output();
    params.kl = kl.output();
    if (c.has_x) params.x = x.input();
    if (c.has_x) params.y = y.output();
    return params;
  }

  hvae::GaussianLatentBwdParams backward_params(bool with_z, bool with_kl, bool with_y) {
    hvae::GaussianLatentBwdParams params;
    fill_noise_and_shape(params);
    params.groups = c.groups;
    params.q = q.input();
    if (with_z) params.grad_z = grad_z.input();
    if (with_kl) params.grad_kl = grad_kl.input();
    if (with_y) params.grad_y = grad_y.input();
    params.grad_q = grad_q.output();
    params.grad_p = grad_p.output();
    return params;
  }

  void check_forward() const;
  void check_backward(bool with_z, bool with_kl, bool with_y) const;
  void check_sample(double temperature) const;
  void check_sample_backward(double temperature) const;

  static constexpr uint32_t kStream = 0x90000003u;
  Case c;
  int64_t rng[2] = {0x123456789ABCDEF, (int64_t{1} << 33) - 1};
  HostTensor q, p, x, eps, grad_z, grad_y, grad_kl;
  HostTensor z, y, kl, grad_q, grad_p;
};

inline void Problem::check_forward() const {
  const int64_t groups = c.groups == 0 ? 1 : c.groups;
  std::vector<double> sums(static_cast<size_t>(c.batch * groups), 0.0);
  z.for_each([&](int64_t b, int64_t channel, int64_t s) {
    const double mean_q = q.at(b, channel, s), mean_p = p.at(b, channel, s);
    const double std_q = std_of(c.std, q.at(b, c.channels + channel, s));
    const double std_p = std_of(c.std, p.at(b, c.channels + channel, s));
    const double ratio = std_q / std_p, gap = (mean_q - mean_p) / std_p;
    const double k = (ratio * ratio + gap * gap - 1) / 2 - std::log(ratio);
    expect_near(z.at(b, channel, s), mean_q + std_q * noise(b, channel, s), c.tolerance(),
                c.name() + " z");
    if (c.groups == 0) expect_near(kl.at(b, channel, s), k, 1e-5, c.name() + " kl element");
    sums[static_cast<size_t>(b * groups + channel / (c.channels / groups))] += k;
  });
  if (c.groups > 0) {
    kl.for_each([&](int64_t b, int64_t group, int64_t) {
      const double tolerance = c.dtype == DType::kFloat64 ? 1e-12 : 1e-6;
      expect_near(kl.at(b, group, 0), sums[static_cast<size_t>(b * groups + group)], tolerance,
                  c.name() + " kl sum");
    });
  }
  if (!c.has_x) return;
  y.for_each([&](int64_t b, int64_t channel, int64_t s) {
    const double wanted = x.at(b, channel, s) + p.at(b, 2 * c.channels + channel, s);
    expect_near(y.at(b, channel, s), wanted, 8e-3, c.name() + " y");
  });
}

inline void Problem::check_backward(bool with_z, bool with_kl, bool with_y) const {
  z.for_each([&](int64_t b, int64_t channel, int64_t s) {
    const double raw_q = q.at(b, c.channels + channel, s);
    const double raw_p = p.at(b, c.channels + channel, s);
    const double std_q = std_of(c.std, raw_q), std_p = std_of(c.std, raw_p);
    const double ratio = std_q / std_p;
    const double gap = (q.at(b, channel, s) - p.at(b, channel, s)) / std_p;
    const double gz = with_z ? grad_z.at(b, channel, s) : 0;
    double gk = 0;
    if (with_kl) {
      gk = c.groups == 0 ? grad_kl.at(b, channel, s)
                         : grad_kl.at(b, channel / (c.channels / c.groups), 0);
    }
    const double wanted[4] = {
        gz + gk * gap / std_p,
        (gz * noise(b, channel, s) + gk * (ratio * ratio - 1) / std_q) * slope_of(c.std, raw_q),
        -gk * gap / std_p,
        gk * (1 - ratio * ratio - gap * gap) / std_p * slope_of(c.std, raw_p),
    };
    const double got[4] = {grad_q.at(b, channel, s), grad_q.at(b, c.channels + channel, s),
                           grad_p.at(b, channel, s), grad_p.at(b, c.channels + channel, s)};
    const char* names[4] = {" d mean_q", " d raw_q", " d mean_p", " d raw_p"};
    for (int i = 0; i < 4; ++i) {
      expect_near(got[i], wanted[i], 2 * c.tolerance(), c.name() + names[i]);
    }
  });
  grad_y.for_each([&](int64_t b, int64_t channel, int64_t s) {
    expect_near(grad_p.at(b, 2 * c.channels + channel, s), with_y ? grad_y.at(b, channel, s) : 0,
                8e-3, c.name() + " d h");
  });
}

inline void Problem::check_sample(double temperature) const {
  z.for_each([&](int64_t b, int64_t channel, int64_t s) {
    const double std_p = std_of(c.std, p.at(b, c.channels + channel, s));
    const double wanted = p.at(b, channel, s) + temperature * std_p * noise(b, channel, s);
    expect_near(z.at(b, channel, s), wanted, c.tolerance(), c.name() + " sample");
  });
}

inline void Problem::check_sample_backward(double temperature) const {
  grad_p.for_each([&](int64_t b, int64_t channel, int64_t s) {
    double wanted = 0;
    if (channel < c.channels) wanted = grad_z.at(b, channel, s);
    if (channel >= c.channels && channel < 2 * c.channels) {
      const int64_t latent = channel - c.channels;
      wanted = grad_z.at(b, latent, s) * temperature * noise(b, latent, s) *
               slope_of(c.std, p.at(b, channel, s));
    }
    expect_near(grad_p.at(b, channel, s), wanted, 2 * c.tolerance(), c.name() + " d sample");
  });
}

// Awkward sizes: one pixel, odd, not divisible by 4, several chunks; one and many channels.
inline std::vector<Case> all_cases(bool small) {
  std::vector<Case> cases;
  const int64_t shapes[][4] = {{2, 1, 0, 1},   {3, 2, 3, 5},    {1, 6, 2, 9},   {2, 16, 4, 16},
                               {1, 16, 0, 63}, {2, 4, 1, 401},  {1, 130, 3, 4}, {0, 4, 2, 4},
                               {2, 8, 4, 64},  {1, 3, 2, 2701}, {1, 4, 0, 4096}};
  int index = 0;
  for (const auto& [batch, channels, width, pixels] : shapes) {
    if (small && batch * channels * pixels > 4096) continue;
    for (Layout layout : {Layout::kChannelsFirst, Layout::kChannelsLast}) {
      for (DType dtype : {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16}) {
        for (int64_t groups : {int64_t{0}, int64_t{1}, channels}) {
          ++index;
          cases.push_back({batch, channels, width, pixels, groups, layout, dtype,
                           index % 3 == 0 ? dtype : DType::kFloat32,
                           index % 2 == 0 ? hvae::StdForm::kLog : hvae::StdForm::kSoftplus,
                           index % 5 == 0, width > 0 && index % 4 != 0, index % 7 == 0 ? 5 : 0});
        }
      }
    }
  }
  // A sample so large that CUDA launches cut it more coarsely (kSmallSample).
  for (Layout layout : {Layout::kChannelsFirst, Layout::kChannelsLast}) {
    cases.push_back({2, 17, 1, 4001, 1, layout, DType::kFloat32, DType::kFloat32,
                     hvae::StdForm::kSoftplus, false, true, 0});
  }
  return cases;
}

}  // namespace test
