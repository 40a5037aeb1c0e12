// Tensors of more than 2^31 elements, of which only the last pixel is looked at: the system gives
// memory to the pages that are touched, so that neither 16 GiB nor the time to fill them are needed.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "expect.h"
#include "kernels/gaussian_latent.h"
#include "kernels/logistic_mixture.h"
#include "math/logistic.h"
#include "math/philox.h"

namespace test {

using hvae::DType;
using hvae::Layout;

constexpr int64_t kLargePixels = (int64_t{1} << 30) + 5;

// Zeros that take no memory until they are written.
template <typename T>
class SparseArray {
 public:
  explicit SparseArray(int64_t count) : bytes_(static_cast<size_t>(count) * sizeof(T)) {
    void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      std::puts("skipped: this system reserves no address space of that size");
      std::exit(0);
    }
    data_ = static_cast<T*>(memory);
  }
  SparseArray(const SparseArray&) = delete;
  ~SparseArray() { munmap(data_, bytes_); }

  T* data() { return data_; }
  T& operator[](int64_t i) { return data_[i]; }

 private:
  size_t bytes_;
  T* data_;
};

// Where channel c of the last pixel lies.
inline int64_t last_pixel(Layout layout, int64_t channels, int64_t c) {
  return layout == Layout::kChannelsFirst ? c * kLargePixels + kLargePixels - 1
                                          : (kLargePixels - 1) * channels + c;
}

// Two latent channels. Launch: (forward params, backward params).
template <typename Launch>
void check_large_latent(Layout layout, Launch launch) {
  constexpr int64_t kChannels = 2;
  constexpr int64_t kRng[] = {5, 0};
  SparseArray<float> q(2 * kChannels * kLargePixels), p(2 * kChannels * kLargePixels);
  SparseArray<float> z(kChannels * kLargePixels), grad_z(kChannels * kLargePixels);
  SparseArray<float> kl(kChannels * kLargePixels);
  SparseArray<float> grad_q(2 * kChannels * kLargePixels), grad_p(2 * kChannels * kLargePixels);

  hvae::GaussianLatentCommon common;
  common.latent = {1, kChannels, kLargePixels, layout};
  common.groups = 0;
  common.std = hvae::StdForm::kLog;
  common.noise.rng = kRng;
  common.q = {q.data(), DType::kFloat32, 2 * kChannels * kLargePixels, 2 * kChannels};
  common.p = {p.data(), DType::kFloat32, 2 * kChannels * kLargePixels, 2 * kChannels};
  hvae::GaussianLatentParams forward;
  static_cast<hvae::GaussianLatentCommon&>(forward) = common;
  forward.z = {z.data(), DType::kFloat32, kChannels * kLargePixels, kChannels};
  forward.kl = {kl.data(), DType::kFloat32, kChannels * kLargePixels, kChannels};
  hvae::GaussianLatentBwdParams backward;
  static_cast<hvae::GaussianLatentCommon&>(backward) = common;
  backward.grad_z = {grad_z.data(), DType::kFloat32, kChannels * kLargePixels, kChannels};
  backward.grad_q = {grad_q.data(), DType::kFloat32, 2 * kChannels * kLargePixels, 2 * kChannels};
  backward.grad_p = {grad_p.data(), DType::kFloat32, 2 * kChannels * kLargePixels, 2 * kChannels};

  const int64_t last = kChannels - 1;
  q[last_pixel(layout, 2 * kChannels, last)] = 0.25f;
  q[last_pixel(layout, 2 * kChannels, kChannels + last)] = -0.5f;
  grad_z[last_pixel(layout, kChannels, last)] = 3.0f;
  launch(forward, backward);

  const int64_t element = last * kLargePixels + kLargePixels - 1;
  const hvae::Normals<double> eps = hvae::normal4<double>(hvae::philox4x32(
      hvae::noise_counter(static_cast<uint32_t>(element / 4), 0, 0), hvae::noise_key(kRng[0])));
  const double lanes[] = {eps.x, eps.y, eps.z, eps.w};
  const double drawn = std::exp(-0.5) * lanes[element % 4];
  expect_near(z[last_pixel(layout, kChannels, last)], 0.25 + drawn, 1e-5, "large z");
  expect_near(kl[last_pixel(layout, kChannels, last)], 0.5 * (std::exp(-1.0) + 0.0625 - 1) + 0.5,
              1e-5, "large kl");
  expect_near(grad_q[last_pixel(layout, 2 * kChannels, last)], 3, 1e-6, "large grad of the mean");
  expect_near(grad_q[last_pixel(layout, 2 * kChannels, kChannels + last)], 3 * drawn, 1e-5,
              "large grad of the std");
}

// A single grey component. Launch: (nll and gradient, draw).
template <typename Launch>
void check_large_mixture(Layout layout, Launch launch) {
  constexpr int64_t kChannels = 3;
  constexpr int64_t kRng[] = {5, 0};
  SparseArray<float> params(kChannels * kLargePixels), grad(kChannels * kLargePixels);
  SparseArray<float> nll(kLargePixels);
  SparseArray<uint8_t> x(kLargePixels);
  SparseArray<int32_t> levels(kLargePixels);

  hvae::LogisticMixtureCommon common;
  common.extent = {1, kChannels, kLargePixels, layout};
  common.params = {params.data(), DType::kFloat32, kChannels * kLargePixels, kChannels};
  hvae::LogisticMixtureNllParams likelihood;
  static_cast<hvae::LogisticMixtureCommon&>(likelihood) = common;
  likelihood.x = {x.data(), 1, kLargePixels, 1};
  likelihood.per_pixel = true;
  likelihood.nll = {nll.data(), DType::kFloat32, kLargePixels, 1};
  likelihood.grad = {grad.data(), DType::kFloat32, kChannels * kLargePixels, kChannels};
  hvae::LogisticMixtureSampleParams draw;
  static_cast<hvae::LogisticMixtureCommon&>(draw) = common;
  draw.noise.rng = kRng;
  draw.levels = levels.data();

  const double mean = 0.3, log_scale = -2;
  params[last_pixel(layout, kChannels, 1)] = static_cast<float>(mean);
  params[last_pixel(layout, kChannels, 2)] = static_cast<float>(log_scale);
  x[kLargePixels - 1] = 200;
  launch(likelihood, draw);

  const auto cdf = [&](double v) { return 1 / (1 + std::exp(-(v - mean) / std::exp(log_scale))); };
  const double above = cdf((2 * 200 - 254) / 255.0), below = cdf((2 * 200 - 256) / 255.0);
  expect_near(nll[kLargePixels - 1], -std::log(above - below), 1e-5, "large nll");
  const double slope = (above * (1 - above) - below * (1 - below)) / (above - below);
  expect_near(grad[last_pixel(layout, kChannels, 1)], slope / std::exp(log_scale), 1e-4,
              "large grad of the mean");
  const hvae::Words words = hvae::philox4x32(
      hvae::noise_counter(static_cast<uint32_t>(kLargePixels - 1), 0, 0), hvae::noise_key(kRng[0]));
  const double u = hvae::uniform<double>(words.y);
  const double drawn = (mean + std::exp(log_scale) * std::log(u / (1 - u)) + 1) / 2 * 255;
  const double level = levels[kLargePixels - 1];
  expect(std::abs(level - std::clamp(drawn, 0.0, 255.0)) < 0.501, "large draw");
}

}  // namespace test
