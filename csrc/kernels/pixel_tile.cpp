#include "kernels/pixel_tile.h"

#include "kernels/dispatch.h"
#include "kernels/simd.h"
#include "math/narrow.h"

namespace hvae {

namespace {

template <typename From, typename To>
HVAE_CLONES void copy_values(int count, const From* __restrict from, To* __restrict to) {
#pragma omp simd
  for (int i = 0; i < count; ++i) to[i] = narrow<To>(widen(from[i]));
}

}  // namespace

template <typename A>
void load_planes(const Input& view, const Extent& extent, const PixelRun& slab, A* planes) {
  with_storage(view.dtype, [&](auto tag) {
    using S = decltype(tag);
    const S* source =
        static_cast<const S*>(view.data) + offset_in(view, extent, slab.sample, 0, slab.first);
    if (extent.layout == Layout::kChannelsFirst) {
      for (int64_t c = 0; c < extent.channels; ++c) {
        copy_values(slab.count, source + c * extent.pixels, planes + c * kSlabStride);
      }
      return;
    }
    for (int i = 0; i < slab.count; ++i) {
      const S* pixel = source + i * view.pixel_stride;
      for (int64_t c = 0; c < extent.channels; ++c) {
        planes[c * kSlabStride + i] = static_cast<A>(widen(pixel[c]));
      }
    }
  });
}

template <typename A>
void store_planes(const Output& view, const Extent& extent, const PixelRun& slab, const A* planes) {
  with_storage(view.dtype, [&](auto tag) {
    using S = decltype(tag);
    S* target = static_cast<S*>(view.data) + offset_in(view, extent, slab.sample, 0, slab.first);
    if (extent.layout == Layout::kChannelsFirst) {
      for (int64_t c = 0; c < extent.channels; ++c) {
        copy_values(slab.count, planes + c * kSlabStride, target + c * extent.pixels);
      }
      return;
    }
    for (int i = 0; i < slab.count; ++i) {
      S* pixel = target + i * view.pixel_stride;
      for (int64_t c = 0; c < extent.channels; ++c) {
        pixel[c] = narrow<S>(planes[c * kSlabStride + i]);
      }
    }
  });
}

#define HVAE_INSTANTIATE(A)                                                       \
  template void load_planes<A>(const Input&, const Extent&, const PixelRun&, A*); \
  template void store_planes<A>(const Output&, const Extent&, const PixelRun&, const A*);
HVAE_INSTANTIATE(float)
HVAE_INSTANTIATE(double)
#undef HVAE_INSTANTIATE

}  // namespace hvae
