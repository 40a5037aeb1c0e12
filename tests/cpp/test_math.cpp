// The float polynomials against libm in double, and the 16-bit types against their definition.
#include <cmath>
#include <cstdint>
#include <limits>

#include "expect.h"
#include "math/elementary.h"
#include "math/narrow.h"

namespace {

using test::expect;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

double ulps(float value, double wanted) {
  const double unit = std::ldexp(1.0, std::max(std::ilogb(wanted), -126) - 23);
  return std::fabs(value - wanted) / unit;
}

template <typename Float, typename Double>
void expect_ulps(const char* name, double low, double high, double limit, Float f, Double wanted) {
  constexpr int kPoints = 400000;
  double worst = 0;
  for (int i = 0; i <= kPoints; ++i) {
    const float x = static_cast<float>(low + (high - low) * i / kPoints);
    worst = std::max(worst, ulps(f(x), wanted(static_cast<double>(x))));
  }
  expect(worst <= limit, std::string(name) + " is off by " + std::to_string(worst) + " ulp");
}

void test_accuracy() {
  const auto log2_1p = [](double t) { return std::log1p(t) / std::log(2.0); };
  expect_ulps(
      "exp", -86.8, 88.7, 1, [](float x) { return hvae::exp(x); },
      [](double x) { return std::exp(x); });
  expect_ulps(
      "exp2_minus_abs", -125, 125, 1.5, [](float x) { return hvae::exp2_minus_abs(x); },
      [](double x) { return std::exp2(-std::fabs(x)); });
  expect_ulps(
      "log", 0.5, 2, 1.5, [](float x) { return hvae::log(x); },
      [](double x) { return std::log(x); });
  for (int exponent = -149; exponent < 128; ++exponent) {
    const float x = std::ldexp(1.37f, exponent);
    expect(ulps(hvae::log(x), std::log(double{x})) < 1.5, "log of any magnitude");
  }
  expect_ulps("log2_1p", 0, 1, 4, [](float t) { return hvae::log2_1p(t); }, log2_1p);
  for (int exponent = -126; exponent < 0; ++exponent) {
    const float t = std::ldexp(0.87f, exponent);
    expect(ulps(hvae::log2_1p(t), log2_1p(t)) < 4, "log2_1p of a tiny value is relative");
  }
}

void test_special_values() {
  expect(std::isnan(hvae::exp(kNaN)) && std::isnan(hvae::exp2_minus_abs(kNaN)), "exp keeps NaN");
  expect(std::isnan(hvae::log(kNaN)) && std::isnan(hvae::log2_1p(kNaN)), "log keeps NaN");
  expect(hvae::exp(kInfinity) == kInfinity && hvae::exp(89.f) == kInfinity, "exp overflows");
  expect(hvae::exp(-kInfinity) == 0 && hvae::exp(-200.f) == 0, "exp underflows");
  expect(hvae::exp2_minus_abs(kInfinity) == 0 && hvae::exp2_minus_abs(-200.f) == 0,
         "exp2_minus_abs underflows");
  expect(hvae::log(0.f) == -kInfinity && hvae::log(kInfinity) == kInfinity, "log at the ends");
  expect(std::isnan(hvae::log(-1.f)), "log of a negative is NaN");
}

void test_sincos() {
  for (uint64_t turn = 0; turn < (uint64_t{1} << 32); turn += 9973) {
    float sine, cosine;
    hvae::sincos_turn(static_cast<uint32_t>(turn), sine, cosine);
    const double angle = static_cast<double>(turn) * (2 * M_PI / 4294967296.0);
    expect(std::fabs(sine - std::sin(angle)) < 1.5e-7, "sine");
    expect(std::fabs(cosine - std::cos(angle)) < 1.5e-7, "cosine");
  }
}

// Every value survives the round trip; halfway points go to the even neighbour; the rest follows,
// since rounding is monotone.
template <typename H>
void test_narrow(const char* name, uint16_t infinity) {
  for (uint32_t bits = 0; bits <= infinity; ++bits) {
    const H h{static_cast<uint16_t>(bits)};
    const float value = hvae::widen(h);
    expect(hvae::narrow<H>(value).bits == bits, std::string(name) + " round trip");
    expect(hvae::narrow<H>(-value).bits == (bits | 0x8000u), std::string(name) + " sign");
    if (bits + 1 >= infinity) continue;
    const float above = hvae::widen(H{static_cast<uint16_t>(bits + 1)});
    const float middle = value + (above - value) / 2;
    const uint32_t even = bits + (bits & 1u);
    expect(hvae::narrow<H>(middle).bits == even, std::string(name) + " ties to even");
    expect(hvae::narrow<H>(std::nextafter(middle, 0.f)).bits == bits,
           std::string(name) + " rounds down");
    expect(hvae::narrow<H>(std::nextafter(middle, kInfinity)).bits == bits + 1,
           std::string(name) + " rounds up");
  }
  expect(std::isnan(hvae::widen(hvae::narrow<H>(kNaN))), std::string(name) + " keeps NaN");
  const float signalling = hvae::float_of_bits(0x7F800001u);
  expect(std::isnan(hvae::widen(hvae::narrow<H>(signalling))),
         std::string(name) + " keeps any NaN");
  expect(hvae::narrow<H>(3.4e38f).bits == infinity, std::string(name) + " overflows to infinity");
}

void test_float16_values() {
  for (uint32_t bits = 0; bits < 0x7C00u; ++bits) {
    const int exponent = static_cast<int>(bits >> 10), fraction = static_cast<int>(bits & 0x3FFu);
    const double wanted =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    expect(hvae::widen(hvae::Float16{static_cast<uint16_t>(bits)}) == wanted, "float16 value");
  }
}

}  // namespace

int main() {
  test_accuracy();
  test_special_values();
  test_sincos();
  test_narrow<hvae::Float16>("float16", 0x7C00u);
  test_narrow<hvae::BFloat16>("bfloat16", 0x7F80u);
  test_float16_values();
  return test::exit_code();
}
