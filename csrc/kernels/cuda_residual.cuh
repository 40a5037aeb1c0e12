// The residual stream beside a latent, y = x + h, by the blocks of a launch behind the latent's.
#pragma once

#include <cstdint>

#include "kernels/arguments.h"
#include "kernels/cuda.h"
#include "kernels/cuda_plan.h"
#include "math/narrow.h"

namespace hvae {

// The (B, W, N) residual beside a (B, C, N) latent.
__device__ inline Extent residual_of(Extent latent, int64_t residual_channels) {
  latent.channels = residual_channels;
  return latent;
}

// One value of any dtype; `dtype` is the same for all threads, so the branches do not diverge.
template <typename A>
__device__ A load_any(const Input& view, int64_t index) {
  switch (view.dtype) {
    case DType::kFloat64:
      return static_cast<A>(static_cast<const double*>(view.data)[index]);
    case DType::kBFloat16:
      return widen(static_cast<const BFloat16*>(view.data)[index]);
    case DType::kFloat16:
      return widen(static_cast<const Float16*>(view.data)[index]);
    default:
      return static_cast<const float*>(view.data)[index];
  }
}

template <typename A>
__device__ void store_any(const Output& view, int64_t index, A value) {
  switch (view.dtype) {
    case DType::kFloat64:
      static_cast<double*>(view.data)[index] = value;
      return;
    case DType::kBFloat16:
      static_cast<BFloat16*>(view.data)[index] = narrow<BFloat16>(value);
      return;
    case DType::kFloat16:
      static_cast<Float16*>(view.data)[index] = narrow<Float16>(value);
      return;
    default:
      static_cast<float*>(view.data)[index] = static_cast<float>(value);
  }
}

// Calls visit(sample, channel, pixel) for the elements of block `block` of the (B, W, N) residual,
// adjacent threads on adjacent addresses.
template <typename Visit>
__device__ void for_each_residual(const Extent& extent, const CudaPlan& plan, int64_t block,
                                  Visit visit) {
  const int64_t sample = block / plan.residual_blocks_per_sample;
  const int64_t first = block % plan.residual_blocks_per_sample * plan.chunk;
  const int64_t size = extent.channels * extent.pixels;
  const int64_t last = first + plan.chunk < size ? first + plan.chunk : size;
  const bool channels_last = extent.layout == Layout::kChannelsLast;
  const int64_t thread = threadIdx.y * blockDim.x + threadIdx.x;
  for (int64_t i = first + thread; i < last; i += blockDim.x * blockDim.y) {
    if (channels_last) {
      visit(sample, i % extent.channels, i / extent.channels);
    } else {
      visit(sample, int64_t{0}, i);
    }
  }
}

// h are the channels of p from `first_channel` on.
__device__ inline void add_residual_block(const Extent& extent, const CudaPlan& plan, int64_t block,
                                          const Input& x, const Input& p, int64_t first_channel,
                                          const Output& y) {
  const bool wide = x.dtype == DType::kFloat64 || p.dtype == DType::kFloat64;
  for_each_residual(extent, plan, block, [&](int64_t sample, int64_t channel, int64_t pixel) {
    const int64_t at_x = offset_in(x, extent, sample, channel, pixel);
    const int64_t at_h = offset_in(p, extent, sample, channel + first_channel, pixel);
    const int64_t at_y = offset_in(y, extent, sample, channel, pixel);
    if (wide) {
      store_any(y, at_y, load_any<double>(x, at_x) + load_any<double>(p, at_h));
    } else {
      store_any(y, at_y, load_any<float>(x, at_x) + load_any<float>(p, at_h));
    }
  });
}

// dh = dy, zero where grad_y is absent.
template <typename A>
__device__ void copy_residual_grad_block(const Extent& extent, const CudaPlan& plan, int64_t block,
                                         const Input& grad_y, const Output& grad_p,
                                         int64_t first_channel) {
  for_each_residual(extent, plan, block, [&](int64_t sample, int64_t channel, int64_t pixel) {
    const int64_t from = offset_in(grad_y, extent, sample, channel, pixel);
    const A grad = grad_y.data == nullptr ? A{0} : load_any<A>(grad_y, from);
    store_any(grad_p, offset_in(grad_p, extent, sample, channel + first_channel, pixel), grad);
  });
}

}  // namespace hvae
