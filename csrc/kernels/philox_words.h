// The Philox words of many blocks at once. CPU.
#pragma once

#include <cstdint>

namespace hvae {

// The words of up to `capacity` blocks, one array per word of a block.
template <int capacity>
struct PlanarWords {
  alignas(64) uint32_t x[capacity], y[capacity], z[capacity], w[capacity];
};

// Which noise: what blocks of one sample have in common.
struct NoiseSource {
  int64_t seed, sample;
  uint32_t stream;
};

// Writes words x..w of `count` blocks. All arrays hold `count` rounded up to a multiple of 8
// values, of which the last are neither meaningful nor initialised in `blocks`.
void draw_words(const NoiseSource& source, const uint32_t* blocks, int count, uint32_t* x,
                uint32_t* y, uint32_t* z, uint32_t* w);

}  // namespace hvae
