// bfloat16 and float16 as storage: kernels load them into float and round back to nearest even.
//
// Written with integer selects where the host has no such type, so that loops over them vectorise.
#pragma once

#include <cstdint>

#include "math/elementary.h"
#include "math/macros.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace hvae {

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

// The type that values stored as S are computed and summed in.
template <typename S>
struct ArithmeticOf {
  using type = float;
};
template <>
struct ArithmeticOf<double> {
  using type = double;
};
template <typename S>
using Arithmetic = typename ArithmeticOf<S>::type;

HVAE_HD float widen(float value) { return value; }
HVAE_HD double widen(double value) { return value; }
HVAE_HD float widen(BFloat16 value) { return float_of_bits(uint32_t{value.bits} << 16); }

HVAE_HD float widen(Float16 value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#else
  const uint32_t magnitude = value.bits & 0x7FFFu;
  // Rebiases the exponent by 112; as a product, so that half denormals come out normal.
  const uint32_t finite = bits_of_float(float_of_bits(magnitude << 13) * 5.19229686e33f);
  const uint32_t special = (magnitude << 13) | 0x7F800000u;
  const uint32_t sign = (uint32_t{value.bits} & 0x8000u) << 16;
  return float_of_bits((magnitude < 0x7C00u ? finite : special) | sign);
#endif
}

// Rounds a computed value to its storage type.
template <typename S>
HVAE_HD S narrow(double value) {
  return static_cast<S>(value);
}
template <typename S>
HVAE_HD S narrow(float value) {
  return static_cast<S>(value);
}

template <>
HVAE_HD BFloat16 narrow<BFloat16>(float value) {
#if defined(__CUDA_ARCH__)
  return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#else
  const uint32_t bits = bits_of_float(value);
  const uint32_t rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);
  const uint32_t quiet = bits | 0x00400000u;  // rounding could carry a NaN over into infinity
  return {static_cast<uint16_t>(((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded) >> 16)};
#endif
}

template <>
HVAE_HD Float16 narrow<Float16>(float value) {
#if defined(__CUDA_ARCH__)
  return {__half_as_ushort(__float2half_rn(value))};
#else
  const uint32_t bits = bits_of_float(value);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  const uint32_t normal = (magnitude - 0x38000000u + 0x0FFFu + ((magnitude >> 13) & 1u)) >> 13;
  // Below 2^-14 the sum with 0.5 leaves the result, rounded to units of 2^-24, in the low bits.
  const uint32_t denormal = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3F000000u;
  const uint32_t special = magnitude > 0x7F800000u ? 0x7E00u : 0x7C00u;
  uint32_t half = magnitude < 0x38800000u ? denormal : normal;
  half = magnitude >= 0x477FF000u ? special : half;  // 65520 and above round to infinity
  return {static_cast<uint16_t>(half | ((bits >> 16) & 0x8000u))};
#endif
}

// Through float: two roundings, in the cases where float64 meets a narrow residual stream.
template <>
HVAE_HD BFloat16 narrow<BFloat16>(double value) {
  return narrow<BFloat16>(static_cast<float>(value));
}
template <>
HVAE_HD Float16 narrow<Float16>(double value) {
  return narrow<Float16>(static_cast<float>(value));
}

}  // namespace hvae
