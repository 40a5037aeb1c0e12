// Which patches a thread of a launch works on; see kernels/cuda_plan.h.
#pragma once

#include <cstdint>

#include "kernels/cuda_patch.cuh"
#include "kernels/cuda_plan.h"

namespace hvae {

template <typename S>
using RunPatch = Patch<1, kRunCols<S>>;
using TilePatch = Patch<4, 4>;

// The task of a row of threads in channels-first layout. Rows beyond the last task have none of
// its elements, but still take part in the sums.
struct RunTask {
  int64_t sample, group, chunk;
  int64_t first, last;  // elements of the sample

  __device__ RunTask(const Extent& extent, const CudaPlan& plan) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
    chunk = index % plan.chunks;
    group = index / plan.chunks % plan.groups;
    sample = index / plan.chunks / plan.groups;
    const int64_t size = extent.channels / plan.groups * extent.pixels;
    const int64_t end = (chunk + 1) * plan.chunk < size ? (chunk + 1) * plan.chunk : size;
    first = group * size + chunk * plan.chunk;
    last = sample < extent.batch ? group * size + end : first;
  }

  // Calls visit(patch) for the patches of this thread.
  template <typename P, typename Visit>
  __device__ void for_each_patch(Visit visit) const {
    const int64_t step = static_cast<int64_t>(blockDim.x) * P::kCols;
    int64_t element = first / P::kCols * P::kCols + threadIdx.x * P::kCols;
    for (; element < last; element += step) {
      const int64_t ahead = first - element, left = last - element;
      visit(P{sample, 0, element, 1, ahead > 0 ? static_cast<int>(ahead) : 0,
              left < P::kCols ? static_cast<int>(left) : P::kCols});
    }
  }
};

// The tile of a block in channels-last layout.
struct TileTask {
  int64_t sample, chunk;
  int64_t channel;  // the first of the tile

  __device__ explicit TileTask(const CudaPlan& plan) {
    const int64_t tile = blockIdx.x / plan.channel_tiles;
    channel = blockIdx.x % plan.channel_tiles * blockDim.x * TilePatch::kCols;
    chunk = tile % plan.chunks;
    sample = tile / plan.chunks;
  }

  // The patch of this thread; it may lie beyond the tensor.
  __device__ TilePatch patch(const Extent& extent) const {
    const int64_t own_channel = channel + threadIdx.x * TilePatch::kCols;
    const int64_t pixel = (chunk * blockDim.y + threadIdx.y) * TilePatch::kRows;
    return {sample, own_channel,
            pixel,  clip(extent.pixels - pixel),
            0,      clip(extent.channels - own_channel)};
  }

 private:
  __device__ static int clip(int64_t left) {
    return left >= 4 ? 4 : left > 0 ? static_cast<int>(left) : 0;
  }
};

}  // namespace hvae
