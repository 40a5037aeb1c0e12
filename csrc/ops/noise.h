// The noise arguments of an op, checked and kept alive for its launch.
#pragma once

#include <cstdint>

#include "ops/check.h"
#include "ops/tensors.h"

namespace hvae {

class NoiseTensors {
 public:
  // For eps of shape (B, channels, *S), where `like` is the op's first tensor, (B, ., *S).
  NoiseTensors(const Tensor& like, int64_t channels, const OptionalTensor& eps, const Tensor& rng,
               Layout layout)
      : eps_(readable_in(checked(eps, like, channels), layout)), rng_(checked(rng, like)) {
    // The counter holds a block index of 32 bits, and a block four elements.
    STD_TORCH_CHECK(extent_of(like, channels, layout).pixels * channels <= int64_t{1} << 34,
                    "a sample may have 2**34 latent elements at most");
  }

  Noise view(int64_t stream) const {
    return {static_cast<const int64_t*>(rng_.const_data_ptr()), check_stream(stream),
            input_view(eps_)};
  }

 private:
  static const OptionalTensor& checked(const OptionalTensor& eps, const Tensor& like,
                                       int64_t channels) {
    if (!eps) return eps;
    check_same_device("eps", *eps, like);
    check_same_dtype("eps", *eps, like.scalar_type());
    check_sizes("eps", *eps, with_channels(sizes_of(like), channels));
    return eps;
  }

  static Tensor checked(const Tensor& rng, const Tensor& like) {
    check_same_device("rng", rng, like);
    check_same_dtype("rng", rng, ScalarType::Long);
    check_sizes("rng", rng, {2});
    return torch::stable::contiguous(rng);
  }

  OptionalTensor eps_;
  Tensor rng_;
};

}  // namespace hvae
