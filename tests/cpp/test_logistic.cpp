// The element formulas of the logistic mixture: masses sum to 1, slopes by finite differences.
#include <cmath>

#include "expect.h"
#include "math/logistic.h"

namespace {

using test::expect;
using test::expect_near;

template <typename T>
struct Level {
  T mean, log_scale;
  int level, last;

  T delta() const { return 1 / static_cast<T>(last); }
  hvae::Edge edge() const { return {level == 0, level == last}; }

  struct Bin {
    T a, b, width;
    hvae::Decays<T> decay;
  };

  Bin bin() const {
    const T target = static_cast<T>(2 * level - last) / static_cast<T>(last);
    const T inverse = hvae::exp(-log_scale), centred = target - mean;
    const T a = (centred + delta()) * inverse, b = (centred - delta()) * inverse;
    const T width = 2 * delta() * inverse;
    return {
        a, b, width, {hvae::exp_minus_abs(a), hvae::exp_minus_abs(b), hvae::exp_minus_abs(width)}};
  }

  T log_mass() const {
    const Bin x = bin();
    const T log_two_delta = std::log(2 * delta());
    const auto mass = hvae::log_mass(x.a, x.b, x.width, log_scale, log_two_delta, x.decay, edge());
    return mass.linear + std::log(mass.n / mass.d);
  }

  hvae::MassSlopes<T> slopes() const {
    const Bin x = bin();
    return hvae::mass_slopes(x.a, x.b, x.width, x.decay, edge());
  }
};

template <typename T>
void test_masses_sum_to_one(double tolerance) {
  for (int bits : {1, 2, 5, 8, 12}) {
    for (double log_scale = -7; log_scale <= 3; log_scale += 0.5) {
      const int last = (1 << bits) - 1;
      double sum = 0;
      for (int level = 0; level <= last; ++level) {
        const Level<T> at{static_cast<T>(0.17), static_cast<T>(log_scale), level, last};
        sum += std::exp(static_cast<double>(at.log_mass()));
      }
      expect_near(sum, 1, tolerance,
                  "mass of " + std::to_string(bits) + " bits at " + std::to_string(log_scale));
    }
  }
}

void test_slopes() {
  constexpr double kStep = 1e-6;
  for (int last : {1, 31, 255, 65535}) {
    for (int level : {0, last / 3, last}) {
      for (double log_scale : {-6.0, -3.0, -0.5, 2.0}) {
        for (double mean : {-0.4, 0.02, 1.3}) {
          const auto value = [&](double m, double s) {
            return Level<double>{m, s, level, last}.log_mass();
          };
          const auto slopes = Level<double>{mean, log_scale, level, last}.slopes();
          const double by_mean =
              (value(mean + kStep, log_scale) - value(mean - kStep, log_scale)) / (2 * kStep);
          const double by_scale =
              (value(mean, log_scale + kStep) - value(mean, log_scale - kStep)) / (2 * kStep);
          expect_near(slopes.mean * std::exp(-log_scale), -by_mean, 1e-5, "slope in the mean");
          expect_near(slopes.log_scale, -by_scale, 1e-5, "slope in the log-scale");
        }
      }
    }
  }
}

void test_finite_everywhere() {
  for (float log_scale : {-7.f, 0.f, 30.f, 80.f, 120.f}) {
    for (float mean : {-1e4f, 0.f, 1e4f}) {
      for (int level : {0, 100, 255}) {
        const Level<float> at{mean, log_scale, level, 255};
        expect(std::isfinite(at.log_mass()), "log-mass at scale " + std::to_string(log_scale));
        expect(std::isfinite(at.slopes().mean), "slope of the mean is finite");
        expect(std::isfinite(at.slopes().log_scale), "slope of the scale is finite");
      }
    }
  }
}

void test_parts() {
  for (float width = 0; width < 0.5f; width += 0.001f) {
    const double wanted = width == 0 ? 1 : -std::expm1(-double{width}) / width;
    expect(std::fabs(hvae::narrow_mass(width) / wanted - 1) < 1.5e-7, "narrow_mass");
  }
  for (float x = -12; x < 12; x += 0.01f) {
    expect(std::fabs(hvae::tanh_of(x) - std::tanh(double{x})) < 1.5e-7, "tanh");
    expect(std::fabs(hvae::exp_minus_abs(x) - std::exp(-std::fabs(double{x}))) < 1e-7, "e^-|x|");
  }
  expect(std::isnan(hvae::tanh_of(std::nanf(""))), "tanh keeps NaN");
}

}  // namespace

int main() {
  test_masses_sum_to_one<double>(1e-12);
  test_masses_sum_to_one<float>(2e-6);
  test_slopes();
  test_finite_everywhere();
  test_parts();
  return test::exit_code();
}
