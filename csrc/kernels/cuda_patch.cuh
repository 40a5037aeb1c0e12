// What one CUDA thread holds in registers: a patch of rows x cols elements of one sample.
//
//   channels-first   1 x 4 or 1 x 8: elements e, e + 1, ... (whole Philox blocks)
//
//   channels-last          c  c+1 c+2 c+3      columns lie side by side in memory; a Philox block
//                     s    .   .   .   .       is a column of the patch, since noise is numbered
//                     s+1  .   .   .   .       by e = c * N + s, so a 4 x 4 patch draws each of
//                     s+2  .   .   .   .       its blocks once
//                     s+3  .   .   .   .
#pragma once

#include <cstdint>

#include "kernels/arguments.h"
#include "kernels/cuda.h"
#include "math/narrow.h"
#include "math/philox.h"

namespace hvae {

// One vector access: 16 bytes where the patch has as many.
template <typename S, int n>
struct alignas(sizeof(S) * n) Pack {
  S values[n];
};

template <int kBytes>
struct Bits;
template <>
struct Bits<16> {
  using type = uint4;
};
template <>
struct Bits<8> {
  using type = uint2;
};

template <int rows_, int cols_>
struct Patch {
  static constexpr int kRows = rows_, kCols = cols_;

  int64_t sample;
  int64_t channel, pixel;   // of element (0, 0); in channels-first 0 and e
  int rows;                 // rows that exist
  int first_col, last_col;  // columns that exist, [first, last)

  __device__ bool has(int row, int col) const {
    return row < rows && col >= first_col && col < last_col;
  }

  __device__ bool is_empty() const { return rows <= 0 || first_col >= last_col; }
};

// How many elements of a run a thread takes: 16 bytes, but no less than a Philox block.
template <typename S>
constexpr int kRunCols = sizeof(S) == 2 ? 8 : 4;

// Reads one row of a patch. `kVector`: the row is whole and aligned, else element by element, and
// what does not exist is 0.
template <bool kVector, typename S, typename P>
__device__ void load_row(const Input& view, const Extent& extent, const P& patch, int row,
                         int64_t channel_offset, Arithmetic<S>* values) {
  const S* source =
      static_cast<const S*>(view.data) +
      offset_in(view, extent, patch.sample, patch.channel + channel_offset, patch.pixel + row);
  if constexpr (kVector) {
    using PackedBits = typename Bits<sizeof(S) * P::kCols>::type;
    const PackedBits bits = *reinterpret_cast<const PackedBits*>(source);
    Pack<S, P::kCols> pack;
    memcpy(&pack, &bits, sizeof bits);
#pragma unroll
    for (int col = 0; col < P::kCols; ++col) values[col] = widen(pack.values[col]);
  } else {
#pragma unroll
    for (int col = 0; col < P::kCols; ++col) {
      values[col] = patch.has(row, col) ? widen(source[col]) : Arithmetic<S>{0};
    }
  }
}

// Writes one row of a patch. __stcs keeps a vector store whole; nvcc splits a plain one in four.
template <bool kVector, typename S, typename P>
__device__ void store_row(const Output& view, const Extent& extent, const P& patch, int row,
                          int64_t channel_offset, const Arithmetic<S>* values) {
  S* target =
      static_cast<S*>(view.data) +
      offset_in(view, extent, patch.sample, patch.channel + channel_offset, patch.pixel + row);
  if constexpr (kVector) {
    Pack<S, P::kCols> pack;
#pragma unroll
    for (int col = 0; col < P::kCols; ++col) pack.values[col] = narrow<S>(values[col]);
    using PackedBits = typename Bits<sizeof(S) * P::kCols>::type;
    PackedBits bits;
    memcpy(&bits, &pack, sizeof bits);
    __stcs(reinterpret_cast<PackedBits*>(target), bits);
  } else {
#pragma unroll
    for (int col = 0; col < P::kCols; ++col) {
      if (patch.has(row, col)) target[col] = narrow<S>(values[col]);
    }
  }
}

template <typename A>
__device__ void draw_block(const Noise& noise, int64_t sample, int64_t block, A* normals) {
  const Counter counter =
      noise_counter(static_cast<uint32_t>(block), noise.stream, noise.rng[1] + sample);
  const Normals<A> n = normal4<A>(philox4x32(counter, noise_key(noise.rng[0])));
  normals[0] = n.x;
  normals[1] = n.y;
  normals[2] = n.z;
  normals[3] = n.w;
}

// The noise of four elements from `element` on, which may lie in two blocks. By selects, since an
// array that is indexed at run time leaves the registers.
template <typename A>
__device__ void draw_four(const Noise& noise, int64_t sample, int64_t element, A* normals) {
  A lanes[8] = {};
  draw_block(noise, sample, element / 4, lanes);
  const int shift = static_cast<int>(element % 4);
  if (shift != 0) draw_block(noise, sample, element / 4 + 1, lanes + 4);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const A by_0_or_1 = (shift & 1) != 0 ? lanes[i + 1] : lanes[i];
    const A by_2_or_3 = (shift & 1) != 0 ? lanes[i + 3] : lanes[i + 2];
    normals[i] = (shift & 2) != 0 ? by_2_or_3 : by_0_or_1;
  }
}

// eps of a whole patch: loaded if given, else drawn.
template <bool kVector, typename S, typename P>
__device__ void patch_noise(const Noise& noise, const Extent& extent, const P& patch,
                            Arithmetic<S> (&eps)[P::kRows][P::kCols]) {
  if (noise.eps.data != nullptr) {
#pragma unroll
    for (int row = 0; row < P::kRows; ++row) {
      if (row < patch.rows) load_row<kVector, S>(noise.eps, extent, patch, row, 0, eps[row]);
    }
  } else if constexpr (P::kRows == 1) {
#pragma unroll
    for (int col = 0; col < P::kCols; col += 4) {
      draw_block(noise, patch.sample, (patch.pixel + col) / 4, eps[0] + col);
    }
  } else {
#pragma unroll
    for (int col = 0; col < P::kCols; ++col) {
      Arithmetic<S> column[4];
      draw_four(noise, patch.sample, (patch.channel + col) * extent.pixels + patch.pixel, column);
#pragma unroll
      for (int row = 0; row < P::kRows; ++row) eps[row][col] = column[row];
    }
  }
}

}  // namespace hvae
