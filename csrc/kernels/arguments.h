// What launches take: tensors as the kernels see them, the region they cover, and the noise.
#pragma once

#include <cstdint>

#include "math/macros.h"

namespace hvae {

enum class DType : int32_t { kFloat32, kFloat64, kBFloat16, kFloat16 };

// Of all tensors of one launch.
enum class Layout : int32_t {
  kChannelsFirst,  // within a sample (c, s) lies at c * N + s
  kChannelsLast,   // within a sample (c, s) lies at s * pixel_stride + c
};

// Strides count elements. `data` is null where an optional tensor is absent.
template <typename Pointer>
struct View {
  Pointer data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t batch_stride = 0;
  int64_t pixel_stride = 0;  // channels-last only
};

using Input = View<const void*>;
using Output = View<void*>;

// The region (B, C, N) that a kernel works on; N = prod(S) pixels.
struct Extent {
  int64_t batch = 0;
  int64_t channels = 0;
  int64_t pixels = 0;
  Layout layout = Layout::kChannelsFirst;
};

// eps of such a region: drawn with Philox (math/philox.h), unless given.
struct Noise {
  const int64_t* rng = nullptr;  // (seed, first_sample), on the device that draws
  uint32_t stream = 0;
  Input eps;  // data null: draw
};

// Where element (sample, channel, pixel) of a tensor lies; N is that of the tensor's extent.
template <typename Pointer>
HVAE_HD int64_t offset_in(const View<Pointer>& view, const Extent& extent, int64_t sample,
                          int64_t channel, int64_t pixel) {
  const int64_t within = extent.layout == Layout::kChannelsFirst
                             ? channel * extent.pixels + pixel
                             : pixel * view.pixel_stride + channel;
  return sample * view.batch_stride + within;
}

}  // namespace hvae
