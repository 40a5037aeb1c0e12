// How the CPU kernels walk over pixels with many channels.
//
// A slab is a run of pixels of one sample, copied to one plane per channel, whatever dtype and
// layout it came in. In channels-first layout it is long, since each channel is a place of its own
// in memory; in channels-last short, since its planes are written a value at a time. The arithmetic
// goes through a slab in tiles of kPixels, whose intermediate results stay in the first cache.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/arguments.h"
#include "math/reduce.h"

namespace hvae {

constexpr int kPixels = 64;
constexpr int kSlabPixels[] = {256, 64};  // by layout
constexpr int kSlabStride = 256 + 16;     // from plane to plane: no power of two, for the caches
constexpr int64_t kPixelsPerTask = 512;

template <typename A>
using Plane = A[kPixels];

// The pixels [first, first + count) of a sample.
struct PixelRun {
  int64_t sample, first;
  int count;

  // The tile that begins at `offset`.
  PixelRun tile(int offset) const {
    return {sample, first + offset, std::min(kPixels, count - offset)};
  }
};

// Tasks over (B, ., N): runs of pixels, each of one sample. Which thread runs one does not change a
// bit of the result.
struct PixelTasks {
  int64_t per_sample, count, pixels, slab_pixels;

  explicit PixelTasks(const Extent& extent)
      : per_sample(ceil_div(extent.pixels, kPixelsPerTask)),
        count(extent.batch * per_sample),
        pixels(extent.pixels),
        slab_pixels(kSlabPixels[static_cast<int>(extent.layout)]) {}

  // Calls visit(slab) for the slabs of a task, in order.
  template <typename Visit>
  void for_each_slab(int64_t task, Visit visit) const {
    const int64_t first = task % per_sample * kPixelsPerTask;
    const int64_t end = std::min(first + kPixelsPerTask, pixels);
    for (int64_t pixel = first; pixel < end; pixel += slab_pixels) {
      visit(
          PixelRun{task / per_sample, pixel, static_cast<int>(std::min(slab_pixels, end - pixel))});
    }
  }
};

// All channels of a slab, as planes at kSlabStride; A is float or double. Beyond its count a plane
// is left alone.
template <typename A>
void load_planes(const Input& view, const Extent& extent, const PixelRun& slab, A* planes);

template <typename A>
void store_planes(const Output& view, const Extent& extent, const PixelRun& slab, const A* planes);

}  // namespace hvae
