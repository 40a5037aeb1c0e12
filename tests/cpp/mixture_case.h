// A logistic mixture problem of any shape, layout and dtype, and its answer by plain double loops.
//
// The mass of a level is the difference of two sigmoids here, and gradients are those of
// differences: the kernels' own formulas are what is being tested. Draws follow from the same
// Philox words.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "expect.h"
#include "host_tensor.h"
#include "kernels/logistic_mixture.h"
#include "math/philox.h"

namespace test {

struct MixtureCase {
  int64_t batch, colours, mixtures, pixels, bits;
  Layout layout;
  DType dtype;
  bool per_pixel;
  int pad;

  int64_t channels() const { return mixtures * (colours == 3 ? 10 : 3); }
  DType nll_dtype() const { return dtype == DType::kFloat64 ? dtype : DType::kFloat32; }
  std::string name() const {
    return "B" + std::to_string(batch) + " n" + std::to_string(colours) + " M" +
           std::to_string(mixtures) + " N" + std::to_string(pixels) + " bits " +
           std::to_string(bits) + (per_pixel ? " per pixel" : "") +
           (layout == Layout::kChannelsLast ? " channels-last" : " channels-first") + " dtype " +
           std::to_string(static_cast<int>(dtype));
  }
};

class MixtureProblem {
 public:
  explicit MixtureProblem(const MixtureCase& c)
      : c_(c),
        params_(c.batch, c.channels(), c.pixels, c.layout, c.dtype, c.pad),
        grad_(c.batch, c.channels(), c.pixels, c.layout, c.dtype, c.pad),
        nll_(c.batch, 1, c.per_pixel ? c.pixels : 1, Layout::kChannelsFirst, c.nll_dtype(), 0),
        grad_nll_(c.batch, 1, c.per_pixel ? c.pixels : 1, Layout::kChannelsFirst, c.nll_dtype(),
                  0) {
    params_.fill(7, 1.0);
    for (int64_t j = 0; j < c.colours; ++j) {  // scales of a few levels to half the range
      for (int64_t m = 0; m < c.mixtures; ++m) {
        const int64_t channel = log_scale(j, m);
        for (int64_t b = 0; b < c.batch; ++b) {
          for (int64_t s = 0; s < c.pixels; ++s) {
            params_.set(b, channel, s, params_.at(b, channel, s) - (m == 0 ? 8.0 : 1.5));
          }
        }
      }
    }
    grad_nll_.fill(11, 1.0);
    const int64_t last = (int64_t{1} << c.bits) - 1;
    x_.resize(static_cast<size_t>(c.batch * c.colours * c.pixels));
    for (size_t i = 0; i < x_.size(); ++i) {
      const auto spread = static_cast<int64_t>((i * 2654435761u) >> 7) % (last + 1);
      x_[i] = static_cast<int32_t>(i % 5 == 0 ? 0 : i % 5 == 1 ? last : spread);
    }
  }

  hvae::LogisticMixtureNllParams params(bool with_nll, bool with_grad) {
    hvae::LogisticMixtureNllParams p;
    p.extent = {c_.batch, c_.channels(), c_.pixels, c_.layout};
    p.colours = c_.colours;
    p.mixtures = c_.mixtures;
    p.bits = c_.bits;
    p.params = params_.input();
    p.x = {x_.data(), 4, c_.colours * c_.pixels, c_.colours};
    p.per_pixel = c_.per_pixel;
    if (with_nll) p.nll = nll_.output();
    if (with_grad) {
      p.grad = grad_.output();
      p.grad_nll = grad_nll_.input();
    }
    return p;
  }

  hvae::LogisticMixtureSampleParams sample_params() {
    hvae::LogisticMixtureSampleParams p;
    static_cast<hvae::LogisticMixtureCommon&>(p) = params(false, false);
    p.temperature = kTemperature;
    p.noise.rng = kRng;
    p.noise.stream = kStream;
    levels_.assign(x_.size(), -1);
    p.levels = levels_.data();
    return p;
  }

  void check_nll() {
    for (int64_t b = 0; b < c_.batch; ++b) {
      double sum = 0;
      for (int64_t s = 0; s < c_.pixels; ++s) {
        const double nll = plain_nll(b, s, pixel_params(b, s));
        sum += nll;
        if (c_.per_pixel) expect_near(nll_.at(b, 0, s), nll, tolerance(), c_.name() + " nll");
      }
      if (!c_.per_pixel) expect_near(nll_.at(b, 0, 0), sum, tolerance(), c_.name() + " nll");
    }
  }

  // The gradient of all parameters, as one vector: its error relative to its norm.
  void check_gradient() {
    constexpr double kStep = 1e-5;
    double error = 0, norm = 0;
    for (int64_t b = 0; b < c_.batch; ++b) {
      for (int64_t s = 0; s < c_.pixels; ++s) {
        const double given = grad_nll_.at(b, 0, c_.per_pixel ? s : 0);
        const std::vector<double> at = pixel_params(b, s);
        for (size_t channel = 0; channel < at.size(); ++channel) {
          std::vector<double> above = at, below = at;
          above[channel] += kStep;
          below[channel] -= kStep;
          const double slope = (plain_nll(b, s, above) - plain_nll(b, s, below)) / (2 * kStep);
          const double difference = grad_.at(b, static_cast<int64_t>(channel), s) - given * slope;
          error += difference * difference;
          norm += given * slope * given * slope;
        }
      }
    }
    const double limit = c_.dtype == DType::kFloat64 || c_.dtype == DType::kFloat32 ? 1e-5 : 8e-3;
    expect(std::sqrt(error) <= limit * std::sqrt(norm),
           c_.name() + " gradient is off by " + std::to_string(std::sqrt(error / norm)));
  }

  // A colour is drawn given the levels that the kernel drew before it.
  void check_levels() {
    for (int64_t b = 0; b < c_.batch; ++b) {
      for (int64_t s = 0; s < c_.pixels; ++s) check_levels(b, s, pixel_params(b, s));
    }
  }

 private:
  static constexpr int64_t kRng[2] = {123456789012, 77};
  static constexpr uint32_t kStream = 9;
  static constexpr double kTemperature = 0.8;

  void check_levels(int64_t b, int64_t s, const std::vector<double>& p) {
    const hvae::Words words =
        hvae::philox4x32(hvae::noise_counter(static_cast<uint32_t>(s), kStream, kRng[1] + b),
                         hvae::noise_key(kRng[0]));
    const uint32_t of_colour[] = {words.y, words.z, words.w};
    const auto at = [&](int64_t channel) { return p[static_cast<size_t>(channel)]; };
    double total = 0;
    for (int64_t m = 0; m < c_.mixtures; ++m) total += std::exp(at(m));
    double left = hvae::uniform<double>(words.x) * total;
    int64_t m = 0;
    while (m + 1 < c_.mixtures && left > std::exp(at(m))) left -= std::exp(at(m++));

    const double last = static_cast<double>((int64_t{1} << c_.bits) - 1);
    double target[3];
    for (int64_t j = 0; j < c_.colours; ++j) {
      const double u = hvae::uniform<double>(of_colour[j]);
      const double scale = std::exp(std::max(at(log_scale(j, m)), -7.0));
      const double v = centre(p, m, j, target) + kTemperature * scale * std::log(u / (1 - u));
      const double drawn = std::clamp((v + 1) / 2 * last, 0.0, last);
      const double level = levels_[level_index(b, j, s)];
      const double rounding = c_.dtype == DType::kFloat64 ? 1e-9 : 1e-6 * last;
      expect(std::abs(level - drawn) <= 0.5 + rounding,
             c_.name() + " draws " + std::to_string(level) + " for " + std::to_string(drawn));
      target[j] = (2 * level - last) / last;
    }
  }

  int64_t mean(int64_t j, int64_t m) const {
    return c_.mixtures * (1 + (c_.colours == 3 ? 3 : 2) * j) + m;
  }
  int64_t log_scale(int64_t j, int64_t m) const { return mean(j, m) + c_.mixtures; }
  double tolerance() const { return c_.dtype == DType::kFloat64 ? 1e-9 : 3e-6; }

  std::vector<double> pixel_params(int64_t b, int64_t s) const {
    std::vector<double> values;
    for (int64_t c = 0; c < c_.channels(); ++c) values.push_back(params_.at(b, c, s));
    return values;
  }

  size_t level_index(int64_t b, int64_t j, int64_t s) const {
    const int64_t within =
        c_.layout == Layout::kChannelsFirst ? j * c_.pixels + s : s * c_.colours + j;
    return static_cast<size_t>(b * c_.colours * c_.pixels + within);
  }

  // The mean of colour j in component m, given the targets of the colours before it.
  double centre(const std::vector<double>& p, int64_t m, int64_t j, const double* target) const {
    const auto at = [&](int64_t channel) { return p[static_cast<size_t>(channel)]; };
    const auto coefficient = [&](int64_t i) { return std::tanh(at(mean(i, m) + 2 * c_.mixtures)); };
    double shifted = at(mean(j, m));
    if (j == 1) shifted += coefficient(0) * target[0];
    if (j == 2) shifted += coefficient(1) * target[0] + coefficient(2) * target[1];
    return shifted;
  }

  double plain_nll(int64_t b, int64_t s, const std::vector<double>& p) const {
    const auto at = [&](int64_t channel) { return p[static_cast<size_t>(channel)]; };
    const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
    const int64_t last = (int64_t{1} << c_.bits) - 1, mixtures = c_.mixtures;
    const double delta = 1.0 / static_cast<double>(last);
    double joint = 0, prior = 0;
    for (int64_t m = 0; m < mixtures; ++m) {
      double mass = 1, target[3];
      for (int64_t j = 0; j < c_.colours; ++j) {
        const int32_t k = x_[level_index(b, j, s)];
        target[j] = static_cast<double>(2 * k - last) / static_cast<double>(last);
        const double scale = std::exp(std::max(at(log_scale(j, m)), -7.0));
        const double a = (target[j] - centre(p, m, j, target) + delta) / scale;
        const double below = (target[j] - centre(p, m, j, target) - delta) / scale;
        // In the upper tail both sigmoids are near 1, and those of the mirror image are not.
        const double inside =
            below > 0 ? sigmoid(-below) - sigmoid(-a) : sigmoid(a) - sigmoid(below);
        mass *= k == 0 ? sigmoid(a) : k == last ? sigmoid(-below) : inside;
      }
      joint += std::exp(at(m)) * mass;
      prior += std::exp(at(m));
    }
    return std::log(prior) - std::log(joint);
  }

  MixtureCase c_;
  HostTensor params_, grad_, nll_, grad_nll_;
  std::vector<int32_t> x_, levels_;
};

// Shapes whose last tiles are cut, both layouts, all dtypes; fewer for the slow emulator.
inline std::vector<MixtureCase> mixture_cases() {
  std::vector<MixtureCase> cases;
  for (const Layout layout : {Layout::kChannelsFirst, Layout::kChannelsLast}) {
    for (const DType dtype :
         {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16}) {
      cases.push_back({2, 3, 3, 7, 8, layout, dtype, false, 0});
      cases.push_back({2, 1, 4, 80, 5, layout, dtype, false, 0});
      cases.push_back({1, 3, 8, 72, 8, layout, dtype, true, 0});
      cases.push_back({3, 1, 2, 65, 8, layout, dtype, true, 3});
      cases.push_back({1, 3, 2, 1, 2, layout, dtype, false, 5});
    }
  }
  return cases;
}

}  // namespace test
