// How a CUDA launch cuts a (B, C, N) region into tasks, and tasks into blocks of threads.
//
//   channels-first   a task is a chunk of one group of channels; a row of threads (x) works on it,
//                    and where tasks are small a block has several rows (y)
//   channels-last    a task is a tile of pixels and channels; each thread of its block has one patch:
//                    x counts in channels, y in pixels
//
// Plain integers, made on the host and passed to the kernels by value.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/arguments.h"
#include "math/reduce.h"

namespace hvae {

constexpr int kBlockThreads = 256;
constexpr int kWarp = 32;

// Samples of fewer elements are cut four times as finely, so that 32 maps of 16x16 still give every
// multiprocessor a block. By the size of a sample alone: its sums must not depend on the batch.
constexpr int64_t kSmallSample = 1 << 16;

struct CudaPlan {
  int64_t chunk;          // elements of a channels-first or residual task
  int64_t groups;         // that KL is summed over, at least 1
  int64_t chunks;         // of a group, or tiles of pixels
  int64_t channel_tiles;  // channels-last, else 1
  int64_t sums;           // per sample and chunk: a sum for each group, or for each channel where
                          // a tile does not hold all of them
  int64_t blocks;         // of the latent
  int64_t residual_blocks_per_sample;
  int threads_x, threads_y;
};

// 2^k >= count, within [low, high], which are powers of two.
inline int threads_for(int64_t count, int low, int high) {
  int threads = low;
  while (threads < count && threads < high) threads *= 2;
  return threads;
}

// `cols` elements per thread in channels-first layout; 4 x 4 in channels-last.
inline CudaPlan plan_cuda(const Extent& extent, int64_t groups, int64_t residual_channels,
                          int cols) {
  CudaPlan plan{};
  const bool small = extent.channels * extent.pixels < kSmallSample;
  const int fewest = small ? kBlockThreads / 4 : kBlockThreads;  // threads of a block of short rows
  plan.chunk = small ? kChunk / 4 : kChunk;
  plan.groups = std::max<int64_t>(groups, 1);
  plan.channel_tiles = 1;
  plan.sums = plan.groups;
  if (extent.layout == Layout::kChannelsFirst) {
    const int64_t elements = extent.channels / plan.groups * extent.pixels;
    plan.chunks = ceil_div(elements, plan.chunk);
    const int64_t vectors = ceil_div(std::min(elements, plan.chunk), cols);
    plan.threads_x = threads_for(vectors, kWarp, kBlockThreads);
    plan.threads_y = std::max(1, fewest / plan.threads_x);
    plan.blocks = ceil_div(extent.batch * plan.groups * plan.chunks, plan.threads_y);
  } else {
    const int64_t channel_patches = ceil_div(extent.channels, 4);
    const int64_t pixel_patches = ceil_div(extent.pixels, 4);
    plan.threads_x = threads_for(channel_patches, 1, 64);
    plan.threads_y = threads_for(pixel_patches, std::max(1, kWarp / plan.threads_x),
                                 std::max(1, fewest / plan.threads_x));
    plan.channel_tiles = ceil_div(channel_patches, plan.threads_x);
    plan.chunks = ceil_div(pixel_patches, plan.threads_y);
    if (plan.channel_tiles > 1) plan.sums = extent.channels;
    plan.blocks = extent.batch * plan.chunks * plan.channel_tiles;
  }
  const int64_t residual = residual_channels * extent.pixels;
  plan.residual_blocks_per_sample = ceil_div(residual, plan.chunk);
  return plan;
}

// The sums that one group's KL is added up from.
inline int64_t partials_per_group(const CudaPlan& plan) {
  return plan.sums / plan.groups * plan.chunks;
}

// Whether every patch row of a view can be one vector access of `cols` elements of `bytes`.
template <typename Pointer>
bool is_vector_view(const View<Pointer>& view, const Extent& extent, int cols, int bytes) {
  const bool first = extent.layout == Layout::kChannelsFirst;
  const int64_t channel_step = first ? extent.channels * extent.pixels : extent.channels;
  const bool aligned = reinterpret_cast<uintptr_t>(view.data) % (cols * bytes) == 0;
  return view.data == nullptr ||
         (aligned && view.batch_stride % cols == 0 && channel_step % cols == 0 &&
          (first || view.pixel_stride % cols == 0));
}

}  // namespace hvae
