// Noise as a pure function of (seed, sample, stream, element): Philox4x32-10 and normals from it.
//
// Philox: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011). What the words
// of counter and key mean is fixed by hvae/ops/philox.py, the same function in tensor operations:
//
//   key      words 0-1  seed (low, high)
//   counter  word  0    block within the sample: element e, in NCHW order, is lane e % 4 of e / 4
//            word  1    stream: the latent group, or any other purpose
//            words 2-3  global sample index (low, high)
#pragma once

#include <cstdint>

#include "math/elementary.h"
#include "math/macros.h"

namespace hvae {

struct Counter {
  uint32_t x, y, z, w;
};

struct Key {
  uint32_t x, y;
};

struct Words {
  uint32_t x, y, z, w;
};

template <typename T>
struct Normals {
  T x, y, z, w;
};

HVAE_HD Key noise_key(int64_t seed) {
  const uint64_t bits = static_cast<uint64_t>(seed);
  return {static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32)};
}

HVAE_HD Counter noise_counter(uint32_t block, uint32_t stream, int64_t sample) {
  const uint64_t bits = static_cast<uint64_t>(sample);
  return {block, stream, static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32)};
}

HVAE_HD uint32_t multiply_high(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
  return __umulhi(a, b);
#else
  return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32);
#endif
}

constexpr int kPhiloxRounds = 10;
constexpr uint32_t kPhiloxMultipliers[2] = {0xD2511F53u, 0xCD9E8D57u};

HVAE_HD Key next_key(Key key) { return {key.x + 0x9E3779B9u, key.y + 0xBB67AE85u}; }

// The four output words of Philox4x32-10.
HVAE_HD Words philox4x32(Counter c, Key key) {
  constexpr uint32_t kFirst = kPhiloxMultipliers[0], kSecond = kPhiloxMultipliers[1];
#if defined(__CUDACC__)
#pragma unroll
#else
#pragma GCC unroll 10
#endif
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint32_t high0 = multiply_high(kFirst, c.x), low0 = kFirst * c.x;
    const uint32_t high1 = multiply_high(kSecond, c.z), low1 = kSecond * c.z;
    c = {high1 ^ c.y ^ key.x, low1, high0 ^ c.w ^ key.y, low0};
    key = next_key(key);
  }
  return {c.x, c.y, c.z, c.w};
}

// A uniform in (0, 1); it and 1 minus it are exact in float, so both logarithms are finite. With
// one bit more the top word would round to 1.
template <typename T>
HVAE_HD T uniform(uint32_t word) {
  constexpr T kStep = static_cast<T>(1.0 / 8388608.0), kOffset = static_cast<T>(1.0 / 16777216.0);
  return static_cast<T>(static_cast<int32_t>(word >> 9)) * kStep + kOffset;  // signed: a cheap cast
}

// Four standard normals by Box-Muller: x, y from words x, y; z, w from words z, w. |n| <= 5.77.
template <typename T>
HVAE_HD Normals<T> normal4(Words words) {
  const T radius0 = sqrt(static_cast<T>(-2) * log_normal_range(uniform<T>(words.x)));
  const T radius1 = sqrt(static_cast<T>(-2) * log_normal_range(uniform<T>(words.z)));
  T sine0, cosine0, sine1, cosine1;
  sincos_turn(words.y, sine0, cosine0);
  sincos_turn(words.w, sine1, cosine1);
  return {radius0 * cosine0, radius0 * sine0, radius1 * cosine1, radius1 * sine1};
}

}  // namespace hvae
