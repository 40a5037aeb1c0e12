// Checks of op arguments. hvae/ops checks first and in the caller's terms; these keep a direct call
// of torch.ops.hvae.* from reading out of bounds.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/arguments.h"
#include "math/gaussian.h"

namespace hvae {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Sizes = std::vector<int64_t>;

inline Sizes sizes_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return {sizes.begin(), sizes.end()};
}

inline Sizes with_channels(Sizes sizes, int64_t channels) {
  sizes[1] = channels;
  return sizes;
}

inline std::string to_string(const Sizes& sizes) {
  std::ostringstream text;
  for (size_t i = 0; i < sizes.size(); ++i) text << (i == 0 ? "(" : ", ") << sizes[i];
  text << (sizes.empty() ? "()" : ")");
  return text.str();
}

inline DType check_dtype(const char* name, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Double:
      return DType::kFloat64;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    case ScalarType::Half:
      return DType::kFloat16;
    default:
      STD_TORCH_CHECK(false, name, " must be float32, bfloat16, float16 or float64, got ",
                      torch::headeronly::toString(tensor.scalar_type()));
  }
}

inline void check_same_dtype(const char* name, const Tensor& tensor, ScalarType wanted) {
  STD_TORCH_CHECK(tensor.scalar_type() == wanted, name, " must be ",
                  torch::headeronly::toString(wanted), ", got ",
                  torch::headeronly::toString(tensor.scalar_type()));
}

inline void check_sizes(const char* name, const Tensor& tensor, const Sizes& wanted) {
  const Sizes sizes = sizes_of(tensor);
  STD_TORCH_CHECK(sizes == wanted, name, " must have shape ", to_string(wanted), ", got ",
                  to_string(sizes));
}

inline void check_same_device(const char* name, const Tensor& tensor, const Tensor& other) {
  STD_TORCH_CHECK(
      tensor.is_cuda() == other.is_cuda() && tensor.get_device_index() == other.get_device_index(),
      name, " is on another device than the op's first tensor");
}

// q or p: (B, channels, *S), at least `channels` of them.
inline void check_buffer(const char* name, const Tensor& tensor, int64_t channels) {
  STD_TORCH_CHECK(tensor.dim() >= 3 && tensor.dim() <= 5, name,
                  " must be (B, channels, *S) with 1 to 3 spatial dimensions, got ",
                  to_string(sizes_of(tensor)));
  STD_TORCH_CHECK(tensor.size(1) >= channels, name, " must have ", channels,
                  " channels or more, got ", tensor.size(1));
}

inline StdForm check_std(int64_t std) {
  STD_TORCH_CHECK(std == 0 || std == 1, "std must be 0 (log) or 1 (softplus), got ", std);
  return static_cast<StdForm>(std);
}

inline uint32_t check_stream(int64_t stream) {
  STD_TORCH_CHECK(stream >= 0 && stream <= 0xFFFFFFFFll, "stream must be in [0, 2**32), got ",
                  stream);
  return static_cast<uint32_t>(stream);
}

}  // namespace hvae
