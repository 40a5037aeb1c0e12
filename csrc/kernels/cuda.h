// CUDA's runtime, or the emulator that runs the same sources on a CPU (tests/cpp/cuda_emulator.h).
#pragma once

#if defined(HVAE_EMULATE_CUDA)
#include "cuda_emulator.h"
#else
#include <cuda_runtime.h>
#define HVAE_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
// The block's shared memory of the size that the launch named, as vectors.
#define HVAE_DYNAMIC_SHARED(name) extern __shared__ uint4 name[]
#endif
