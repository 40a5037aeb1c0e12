// How CUDA kernels hold pixels with many channels: a block copies all channels of its pixels to
// shared memory, 16 bytes at a time in either layout, and each thread works on one pixel:
//
//   channels-first   tile[c][pixel]        neighbours in a warp read neighbours in memory
//   channels-last    tile[pixel][c]        rows of odd length, so that they lie in all banks
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/arguments.h"
#include "kernels/cuda.h"
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_patch.cuh"
#include "kernels/cuda_plan.h"
#include "math/narrow.h"

namespace hvae {

constexpr int kPixelThreads = 64;
constexpr int kTileBytes = 32 * 1024;  // at most

struct PixelPlan {
  int pixels;  // per block; 0: one pixel's channels do not fit
  int64_t blocks_per_sample;
  int pixel_step, channel_step;  // in the tile
  size_t tile_bytes;
};

inline PixelPlan plan_pixels(const Extent& extent, DType dtype) {
  const int64_t bytes = dtype == DType::kFloat64 ? 8 : 4;  // as computed in
  const bool first = extent.layout == Layout::kChannelsFirst;
  const int64_t row = first ? extent.channels : extent.channels | 1;
  int64_t pixels = std::min<int64_t>(kTileBytes / bytes / row, kPixelThreads);
  if (pixels >= 8) pixels -= pixels % 8;  // whole vectors
  PixelPlan plan{};
  plan.pixels = static_cast<int>(pixels);
  if (pixels == 0) return plan;
  plan.blocks_per_sample = ceil_div(extent.pixels, pixels);
  plan.pixel_step = first ? 1 : static_cast<int>(row);
  plan.channel_step = first ? plan.pixels : 1;
  plan.tile_bytes = static_cast<size_t>(pixels * row * bytes);
  return plan;
}

inline LaunchShape shape_of(const Extent& extent, const PixelPlan& plan) {
  return {extent.batch * plan.blocks_per_sample, dim3(kPixelThreads), plan.tile_bytes};
}

template <typename S>
constexpr int kPackElements = 16 / static_cast<int>(sizeof(S));

// The pixels of a block.
struct PixelBlock {
  int64_t sample, first;
  int count;

  __device__ PixelBlock(const Extent& extent, const PixelPlan& plan)
      : sample(blockIdx.x / plan.blocks_per_sample),
        first(blockIdx.x % plan.blocks_per_sample * plan.pixels) {
    const int64_t left = extent.pixels - first;
    count = left < plan.pixels ? static_cast<int>(left) : plan.pixels;
  }
};

// Calls visit(offset in the sample, place in the tile, step in the tile) for runs of `length`
// elements that cover the block, each run by one thread.
template <typename Visit>
__device__ void for_each_run(const Extent& extent, const PixelPlan& plan, const PixelBlock& block,
                             int64_t pixel_stride, int length, Visit visit) {
  const bool first = extent.layout == Layout::kChannelsFirst;
  const int channels = static_cast<int>(extent.channels);
  const int row = first ? block.count : channels, rows = first ? channels : block.count;
  const int runs = row / length;
  for (int i = static_cast<int>(threadIdx.x); i < rows * runs; i += static_cast<int>(blockDim.x)) {
    const int at_row = i / runs, at = i % runs * length;
    if (first) {
      visit(at_row * extent.pixels + block.first + at, at_row * plan.channel_step + at);
    } else {
      visit((block.first + at_row) * pixel_stride + at, at_row * plan.pixel_step + at);
    }
  }
}

template <bool kVector, typename S>
__device__ void load_tile(const Input& view, const Extent& extent, const PixelPlan& plan,
                          const PixelBlock& block, Arithmetic<S>* tile) {
  const S* source = static_cast<const S*>(view.data) + block.sample * view.batch_stride;
  constexpr int kLength = kVector ? kPackElements<S> : 1;
  for_each_run(extent, plan, block, view.pixel_stride, kLength, [&](int64_t offset, int place) {
    if constexpr (kVector) {
      const uint4 bits = *reinterpret_cast<const uint4*>(source + offset);
      Pack<S, kLength> pack;
      memcpy(&pack, &bits, sizeof bits);
#pragma unroll
      for (int i = 0; i < kLength; ++i) tile[place + i] = widen(pack.values[i]);
    } else {
      tile[place] = widen(source[offset]);
    }
  });
}

template <bool kVector, typename S>
__device__ void store_tile(const Output& view, const Extent& extent, const PixelPlan& plan,
                           const PixelBlock& block, const Arithmetic<S>* tile) {
  S* target = static_cast<S*>(view.data) + block.sample * view.batch_stride;
  constexpr int kLength = kVector ? kPackElements<S> : 1;
  for_each_run(extent, plan, block, view.pixel_stride, kLength, [&](int64_t offset, int place) {
    if constexpr (kVector) {
      Pack<S, kLength> pack;
#pragma unroll
      for (int i = 0; i < kLength; ++i) pack.values[i] = narrow<S>(tile[place + i]);
      uint4 bits;
      memcpy(&bits, &pack, sizeof bits);
      __stcs(reinterpret_cast<uint4*>(target + offset), bits);
    } else {
      target[offset] = narrow<S>(tile[place]);
    }
  });
}

// Whether all copies may go 16 bytes at a time.
template <typename... Views>
bool is_vectorizable(const Extent& extent, const PixelPlan& plan, DType dtype,
                     const Views&... views) {
  const bool first = extent.layout == Layout::kChannelsFirst;
  const int elements = 16 / bytes_of(dtype);
  const int64_t row = first ? extent.pixels : extent.channels;
  const bool whole = row % elements == 0 && (!first || plan.pixels % elements == 0);
  return whole && (is_vector_view(views, extent, elements, bytes_of(dtype)) && ...);
}

}  // namespace hvae
