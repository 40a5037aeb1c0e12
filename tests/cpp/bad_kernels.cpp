// Kernels that a GPU would hang on or leave undefined; the emulator must abort on each.
//
// Arguments: "barrier" or "exchange".
#include <cstring>

#include "cuda_emulator.h"

void half_a_barrier() {
  if (threadIdx.x < 16) __syncthreads();
}

void half_a_warp() {
  if (threadIdx.x < 16) __shfl_xor_sync(0xFFFFFFFFu, 1.0f, 1);
}

int main(int count, char** arguments) {
  const bool barrier = count > 1 && std::strcmp(arguments[1], "barrier") == 0;
  const auto kernel = barrier ? half_a_barrier : half_a_warp;
  HVAE_LAUNCH(kernel, dim3(1), dim3(64), 0, nullptr);
  return 0;
}
