// CUDA's runtime, or the emulator that runs the same sources on a CPU (tests/cpp/cuda_emulator.h).
#pragma once

#if defined(HVAE_EMULATE_CUDA)
#include "cuda_emulator.h"
#else
#include <cuda_runtime.h>
#define HVAE_LAUNCH(kernel, grid, block, stream, ...) \
  kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#endif
