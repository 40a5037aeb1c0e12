// Host code that CUDA launches share: the choice of a kernel's variant, and the launch itself.
#pragma once

#include <climits>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda.h"
#include "kernels/cuda_plan.h"
#include "kernels/cuda_tasks.cuh"
#include "kernels/dispatch.h"

namespace hvae {

inline int bytes_of(DType dtype) {
  return with_storage(dtype, [](auto zero) { return static_cast<int>(sizeof zero); });
}

inline int run_cols(DType dtype) {
  return with_storage(dtype, [](auto zero) { return kRunCols<decltype(zero)>; });
}

// Whether a launch may use vector accesses: every row of every patch is whole and aligned.
template <typename... Views>
bool is_vectorizable(const Extent& extent, int64_t groups, DType dtype, const Views&... views) {
  const bool first = extent.layout == Layout::kChannelsFirst;
  const int cols = first ? run_cols(dtype) : TilePatch::kCols;
  const bool whole = !first || extent.channels / groups * extent.pixels % cols == 0;
  return whole && (is_vector_view(views, extent, cols, bytes_of(dtype)) && ...);
}

// Calls use(value, is_vector) with a value of the storage type and a compile-time flag; float64
// has scalar kernels only.
template <typename Use>
int with_kernel_variant(DType dtype, bool vector, Use use) {
  return with_storage(dtype, [&](auto zero) {
    if constexpr (!std::is_same_v<decltype(zero), double>) {
      if (vector) return use(zero, std::true_type{});
    }
    return use(zero, std::false_type{});
  });
}

// How many blocks of how many threads, with how much dynamic shared memory.
struct LaunchShape {
  int64_t blocks;
  dim3 threads;
  size_t shared_bytes = 0;
};

// No blocks are no error. Returns the cudaError_t.
template <typename... Parameters, typename... Arguments>
int launch(void (*kernel)(Parameters...), const LaunchShape& shape, void* stream,
           Arguments... arguments) {
  if (shape.blocks == 0) return cudaSuccess;
  if (shape.blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  HVAE_LAUNCH(kernel, dim3(static_cast<unsigned>(shape.blocks)), shape.threads, shape.shared_bytes,
              stream, arguments...);
  return cudaGetLastError();
}

// Launches the blocks of a plan, latent and residual.
template <typename Kernel, typename... Arguments>
int launch_plan(Kernel kernel, const CudaPlan& plan, int64_t batch, void* stream,
                const Arguments&... arguments) {
  const int64_t blocks = plan.blocks + batch * plan.residual_blocks_per_sample;
  const dim3 threads(static_cast<unsigned>(plan.threads_x), static_cast<unsigned>(plan.threads_y));
  return launch(kernel, {blocks, threads}, stream, arguments...);
}

}  // namespace hvae
