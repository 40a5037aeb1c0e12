// exp, log and friends for the kernels: branch-free in float, so that loops over them vectorise.
// Polynomials are split into halves that do not wait for each other: in Horner's scheme the loops
// spend their time on the latency of chained multiply-adds.
//
// float: polynomials, within 4 ulp of the true value (tests/cpp/test_math.cpp); exp and log of
// CUDA's library on its devices, where they are as fast. double: libm. NaN gives NaN everywhere,
// overflow gives infinity: a clamped result would hide a divergence from whoever looks for its
// origin. What falls below the normal floats may become zero.
#pragma once

#include <cmath>
#include <cstdint>

#include "math/macros.h"

namespace hvae {

HVAE_HD float float_of_bits(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

HVAE_HD uint32_t bits_of_float(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

namespace detail {

// Added to a float of magnitude below 2^22 it rounds that to an integer n, and leaves n + 127 in
// the low bits of the sum: shifted to the exponent's place these are 2^n.
constexpr float kRoundingShift = 12582912.0f + 127.0f;  // 1.5 * 2^23, and the exponent's bias

// 2^r on |r| <= 1/2, relative error 2e-9 before rounding.
HVAE_HD float exp2_reduced(float r) {
  const float r2 = r * r;
  const float p2 = 2.402264791e-1f + 5.550332470e-2f * r;
  const float p4 = 9.618437366e-3f + 1.339887487e-3f * r + 1.535336064e-4f * r2;
  return ((p2 + p4 * r2) * r2 + 6.931472029e-1f * r) + 1.0f;
}

}  // namespace detail

// e^x.
HVAE_HD float exp(float x) {
#if defined(__CUDA_ARCH__)
  return ::expf(x);
#else
  constexpr float kShift = detail::kRoundingShift - 1.0f;  // half of 2^n: 2^128 is no float, but
  const float bounded = x > 89.0f ? 89.0f : x;             // the result may be
  const float shifted = bounded * 1.44269504f + kShift;
  const float n = shifted - kShift;
  const float r = bounded - n * 0.693359375f + n * 2.12194440e-4f;
  const float r2 = r * r;  // e^r on |r| <= ln(2) / 2, relative error 3e-9 before rounding
  const float high = 4.166838899e-2f + 8.368710056e-3f * r + 1.381461276e-3f * r2;
  const float p = 4.999999404e-1f + 1.666652113e-1f * r + high * r2;
  const float m = p * r2 + r + 1.0f;
  const float y = (m + m) * float_of_bits(bits_of_float(shifted) << 23);
  return x < -86.9f ? 0.0f : y;
#endif
}

// 2^-|x|.
HVAE_HD float exp2_minus_abs(float x) {
#if defined(__CUDA_ARCH__)
  return ::exp2f(-::fabsf(x));
#else
  const float minus = float_of_bits(bits_of_float(x) | 0x80000000u);
  const float bounded = minus < -127.0f ? -127.0f : minus;  // where 2^n comes out as 0
  const float shifted = bounded + detail::kRoundingShift;
  const float r = bounded - (shifted - detail::kRoundingShift);
  return detail::exp2_reduced(r) * float_of_bits(bits_of_float(shifted) << 23);
#endif
}

// ln x for x positive, finite and not denormal; anything else gives garbage. Exact near 1, as the
// radius of Box-Muller needs.
HVAE_HD float log_normal_range(float x) {
  const uint32_t bits = bits_of_float(x);
  const int32_t exponent =
      static_cast<int32_t>(bits - 0x3F3504F3u) >> 23;  // mantissa from sqrt(1/2)
  const float n = static_cast<float>(exponent);
  const float f = float_of_bits(bits - (static_cast<uint32_t>(exponent) << 23)) - 1.0f;
  const float f2 = f * f;
  const float even =
      3.333331673e-1f + (2.000228608e-1f + (1.418119611e-1f + 1.288162240e-1f * f2) * f2) * f2;
  const float odd =
      -2.500081043e-1f + (-1.662455314e-1f + (-1.312876763e-1f - 7.859545868e-2f * f2) * f2) * f2;
  const float tail = ((even + odd * f) * f - 0.5f) * f2;
  return f + (tail - n * 2.12194440e-4f) + n * 0.693359375f;
}

// ln x. Zero gives -infinity, a negative x NaN.
HVAE_HD float log(float x) {
#if defined(__CUDA_ARCH__)
  return ::logf(x);
#else
  const bool denormal = x < 1.17549435e-38f;
  const float normal = denormal ? x * 8388608.0f : x;
  float y = log_normal_range(normal) - (denormal ? 15.9423847f : 0.0f);  // ln 2^23
  y = x == 0.0f ? -HUGE_VALF : y;
  y = x < 0.0f ? NAN : y;
  return x <= 3.40282347e+38f ? y : x;  // infinity and NaN as they are
#endif
}

// log2(1 + t) for 0 <= t <= 1, to relative accuracy: t itself may be tiny.
HVAE_HD float log2_1p(float t) {
  const float t2 = t * t, t4 = t2 * t2;
  const float p0 =
      1.442694997f - 7.213402073e-1f * t + (4.806929444e-1f - 3.584083770e-1f * t) * t2;
  const float p4 =
      2.756410550e-1f - 1.971182326e-1f * t + (1.128553425e-1f - 4.256654774e-2f * t) * t2;
  return (p0 + (p4 + 7.549055401e-3f * t4) * t4) * t;
}

HVAE_HD float sqrt(float x) {
#if defined(__CUDA_ARCH__)
  return ::sqrtf(x);
#else
  return __builtin_sqrtf(x);
#endif
}

HVAE_HD float abs(float x) { return float_of_bits(bits_of_float(x) & 0x7FFFFFFFu); }

// x to the nearest integer, halves to the even one, for |x| < 2^22.
HVAE_HD float round_half_even(float x) {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: floats are whole numbers there
  return (x + kShift) - kShift;
}

// Sine and cosine of the angle turn / 2^32 of a full circle.
HVAE_HD void sincos_turn(uint32_t turn, float& sine, float& cosine) {
  const uint32_t quadrant = (turn + 0x20000000u) >> 30;
  const int32_t rest =
      static_cast<int32_t>(turn - (quadrant << 30));          // an eighth of a turn at most
  const float x = static_cast<float>(rest) * 1.46291808e-9f;  // 2 pi / 2^32
  const float square = x * x;
  const float s =
      x + x * square * (-1.666665524e-1f + square * (8.332160302e-3f - square * 1.951528393e-4f));
  const float c =
      1.0f - 0.5f * square +
      square * square * (4.166664556e-2f + square * (-1.388731645e-3f + square * 2.443315680e-5f));
  const float along = (quadrant & 1u) != 0 ? c : s;
  const float across = (quadrant & 1u) != 0 ? s : c;
  sine = (quadrant & 2u) != 0 ? -along : along;
  cosine = ((quadrant + 1u) & 2u) != 0 ? -across : across;
}

HVAE_HD double exp(double x) { return ::exp(x); }
HVAE_HD double exp2_minus_abs(double x) { return ::exp2(-::fabs(x)); }
HVAE_HD double log_normal_range(double x) { return ::log(x); }
HVAE_HD double log(double x) { return ::log(x); }
HVAE_HD double log2_1p(double t) { return ::log1p(t) * 1.4426950408889634; }
HVAE_HD double sqrt(double x) { return ::sqrt(x); }
HVAE_HD double abs(double x) { return ::fabs(x); }
HVAE_HD double round_half_even(double x) { return ::rint(x); }

HVAE_HD void sincos_turn(uint32_t turn, double& sine, double& cosine) {
  // As a signed word the angle lies in [-pi, pi), where a rounding error is smallest.
  const double half_turns = static_cast<int32_t>(turn) / 2147483648.0;
#if defined(__CUDA_ARCH__)
  ::sincospi(half_turns, &sine, &cosine);  // sin and cos would bring reductions of huge angles
#else
  sine = ::sin(half_turns * 3.141592653589793);
  cosine = ::cos(half_turns * 3.141592653589793);
#endif
}

}  // namespace hvae
