// From filled params to the device: threads on the CPU, the current stream on CUDA.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>

#include "math/reduce.h"
#include "ops/check.h"

namespace hvae {

// Gives tasks [0, count) to torch's threads as launch(begin, end). `elements` of all tasks decide
// how many a thread takes at least: less work than that costs more to hand over than to do.
template <typename Launch>
void launch_on_threads(int64_t count, int64_t elements, Launch launch) {
  constexpr int64_t kElementsPerThread = 8192;
  const int64_t per_task = std::max<int64_t>(elements / std::max<int64_t>(count, 1), 1);
  torch::stable::parallel_for(0, count, ceil_div(kElementsPerThread, per_task), launch);
}

#ifdef HVAE_WITH_CUDA
// The current stream of a device, a cudaStream_t.
void* current_cuda_stream(int32_t device_index);

// Calls launch(stream) with the tensor's device current.
template <typename Launch>
void launch_on_stream(const Tensor& on, Launch launch) {
  const torch::stable::accelerator::DeviceGuard guard(on.get_device_index());
  const int error = launch(current_cuda_stream(on.get_device_index()));
  STD_TORCH_CHECK(error == 0, "the CUDA launch failed with cudaError_t ", error);
}
#endif

}  // namespace hvae
