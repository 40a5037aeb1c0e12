// Sums over the threads of a block and over blocks, always in the same order.
#pragma once

#include <cstdint>

#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_plan.h"
#include "math/reduce.h"

namespace hvae {

template <typename T>
__device__ T sum_warp(T value) {
#pragma unroll
  for (int lane = kWarp / 2; lane > 0; lane /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFu, value, lane);
  }
  return value;
}

// The sum over a row of threads (x), valid in its thread 0. All threads of the block must call.
template <typename A>
__device__ A sum_row(A value) {
  __shared__ A of_warp[kBlockThreads / kWarp];
  value = sum_warp(value);
  const int warps = static_cast<int>(blockDim.x) / kWarp;  // of a row
  if (warps == 1) return value;
  const int first = static_cast<int>(threadIdx.y) * warps;
  if (threadIdx.x % kWarp == 0) of_warp[first + threadIdx.x / kWarp] = value;
  __syncthreads();
  A sum = 0;
  for (int i = 0; i < warps; ++i) sum += of_warp[first + i];
  return sum;
}

// The sums of four columns over the pixels (y) of a channels-last block, left in `columns`:
// 4 threads_x sums, one per channel of the block. Visible to all threads on return.
template <typename A>
__device__ void sum_columns(const A (&sums)[4], A* columns) {
  const int width = 4 * static_cast<int>(blockDim.x);
  A* own = columns + threadIdx.y * width + 4 * threadIdx.x;
#pragma unroll
  for (int col = 0; col < 4; ++col) own[col] = sums[col];
  for (int half = static_cast<int>(blockDim.y) / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.y) < half) {
#pragma unroll
      for (int col = 0; col < 4; ++col) own[col] += own[half * width + col];
    }
  }
  __syncthreads();
}

// Second stage: sums[i] = the sum of its `count` partials, one warp each, in double.
template <typename A>
__global__ void add_partials(const A* partials, int64_t count, int64_t num_sums, A* sums) {
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  const int64_t group = warp < num_sums ? warp : num_sums - 1;  // no warp may leave early
  const double sum = sum_warp(sum_in_order(partials + group * count, count, threadIdx.x, kWarp));
  if (threadIdx.x == 0 && warp < num_sums) sums[group] = static_cast<A>(sum);
}

template <typename A>
int launch_add_partials(const void* partials, int64_t count, int64_t num_sums, void* sums,
                        void* stream) {
  const int warps = kBlockThreads / kWarp;
  return launch(add_partials<A>, {ceil_div(num_sums, warps), dim3(kWarp, warps)}, stream,
                static_cast<const A*>(partials), count, num_sums, static_cast<A*>(sums));
}

}  // namespace hvae
