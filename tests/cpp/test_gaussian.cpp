// The element formulas: gradients by finite differences, properties of the KL, the std's two forms.
#include <cmath>

#include "expect.h"
#include "math/gaussian.h"

namespace {

using hvae::StdForm;
using test::expect;
using test::expect_near;

constexpr double kStep = 1e-6;

template <typename F>
double slope(F f, double x) {
  return (f(x + kStep) - f(x - kStep)) / (2 * kStep);
}

template <StdForm form>
void test_gradients(double mean_q, double raw_q, double mean_p, double raw_p) {
  const double eps = -0.8, grad_z = 1.3, grad_kl = 0.7, floor = 1e-3;
  const auto objective = [&](double mq, double rq, double mp, double rp) {
    const auto value = hvae::latent<form>(mq, rq, mp, rp, eps, floor);
    return grad_z * value.z + grad_kl * value.kl;
  };
  const auto grad =
      hvae::latent_grad<form>(mean_q, raw_q, mean_p, raw_p, eps, grad_z, grad_kl, floor);
  const auto by = [&](auto f, double x) { return slope(f, x); };
  expect_near(grad.mean_q, by([&](double v) { return objective(v, raw_q, mean_p, raw_p); }, mean_q),
              1e-6, "d mean_q");
  expect_near(grad.raw_q, by([&](double v) { return objective(mean_q, v, mean_p, raw_p); }, raw_q),
              1e-6, "d raw_q");
  expect_near(grad.mean_p, by([&](double v) { return objective(mean_q, raw_q, v, raw_p); }, mean_p),
              1e-6, "d mean_p");
  expect_near(grad.raw_p, by([&](double v) { return objective(mean_q, raw_q, mean_p, v); }, raw_p),
              1e-6, "d raw_p");

  const auto draw = [&](double v) { return hvae::sample<form>(mean_p, v, eps, floor, 0.6); };
  const auto sample_grad = hvae::sample_grad<form>(raw_p, eps, grad_z, floor, 0.6);
  expect_near(sample_grad.mean, grad_z, 0, "d mean of a sample");
  expect_near(sample_grad.raw, grad_z * slope(draw, raw_p), 1e-6, "d raw of a sample");
  expect_near(hvae::std_with_slope<form>(raw_p, floor).value, hvae::std_of<form>(raw_p, floor),
              1e-15, "both ways to the std agree");
}

template <StdForm form>
void test_kl(double mean_q, double raw_q, double mean_p, double raw_p) {
  const double floor = 1e-3;
  const auto kl = [&](double mp, double rp) {
    return hvae::latent<form>(mean_q, raw_q, mp, rp, 0.0, floor).kl;
  };
  expect(kl(mean_p, raw_p) >= -1e-12, "KL is not negative");
  expect_near(kl(mean_q, raw_q), 0, 1e-12, "KL of a distribution to itself is 0");
}

void test_std_forms() {
  expect_near(hvae::std_of<StdForm::kSoftplus>(0.0, 0.25), 1.25, 1e-15, "softplus at 0");
  expect_near(hvae::std_of<StdForm::kSoftplus>(-200.0, 0.25), 0.25, 1e-15, "softplus has a floor");
  expect_near(hvae::std_of<StdForm::kSoftplus>(300.0, 0.0), 300, 1e-15, "softplus is linear above");
  expect(hvae::std_of<StdForm::kSoftplus>(-100.0f, 0.0f) > 0, "float softplus keeps tiny values");
  expect_near(hvae::std_of<StdForm::kLog>(std::log(3.0), 9.0), 3, 1e-15, "log ignores the floor");
}

void test_extremes() {
  // exp(s)^2 / exp(s')^2 overflows here, exp(s - s') does not.
  const auto large = hvae::latent<StdForm::kLog>(0.0f, 60.0f, 0.0f, 60.0f, 0.0f, 0.0f);
  expect_near(large.kl, 0, 1e-6, "equal large stds");
  const float nan = std::nanf("");
  expect(std::isnan(hvae::latent<StdForm::kLog>(0.f, nan, 0.f, 0.f, 0.f, 0.f).kl), "NaN, log");
  expect(std::isnan(hvae::latent<StdForm::kSoftplus>(0.f, nan, 0.f, 0.f, 0.f, 0.f).z), "NaN in z");
  expect(std::isnan(hvae::latent<StdForm::kSoftplus>(0.f, 0.f, 0.f, nan, 0.f, 0.f).kl), "NaN in p");
  expect(std::isinf(hvae::latent<StdForm::kLog>(0.f, 200.f, 0.f, 0.f, 1.f, 0.f).z), "overflow");
}

template <StdForm form>
void test_form() {
  for (double raw_q : {-6.0, -0.5, 0.0, 1.7}) {
    for (double raw_p : {-1.5, 0.3, 2.0}) {
      for (double mean_q : {-1.0, 0.25}) {
        test_gradients<form>(mean_q, raw_q == 0 ? 0.1 : raw_q, 0.4, raw_p);
        test_kl<form>(mean_q, raw_q, 0.4, raw_p);
      }
    }
  }
}

}  // namespace

int main() {
  test_form<StdForm::kLog>();
  test_form<StdForm::kSoftplus>();
  test_std_forms();
  test_extremes();
  return test::exit_code();
}
