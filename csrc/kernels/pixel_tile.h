// How the CPU kernels walk over pixels with many channels: a tile is a run of pixels of one sample,
// held as a plane of kPixels values per channel, whatever dtype and layout it came in.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/arguments.h"
#include "math/reduce.h"

namespace hvae {

// A tile of a hundred planes stays in the first two caches.
constexpr int kPixels = 64;
constexpr int64_t kPixelsPerTask = 512;

template <typename A>
using Plane = A[kPixels];

// The pixels [first, first + count) of a sample.
struct PixelTile {
  int64_t sample, first;
  int count;
};

// Tasks over (B, ., N): runs of pixels, each of one sample. Which thread runs one does not change a
// bit of the result.
struct PixelTasks {
  int64_t per_sample, count, pixels;

  explicit PixelTasks(const Extent& extent)
      : per_sample(ceil_div(extent.pixels, kPixelsPerTask)),
        count(extent.batch * per_sample),
        pixels(extent.pixels) {}

  // Calls visit(tile) for the tiles of a task, in order.
  template <typename Visit>
  void for_each_tile(int64_t task, Visit visit) const {
    const int64_t first = task % per_sample * kPixelsPerTask;
    const int64_t end = std::min(first + kPixelsPerTask, pixels);
    for (int64_t pixel = first; pixel < end; pixel += kPixels) {
      visit(PixelTile{task / per_sample, pixel,
                      static_cast<int>(std::min<int64_t>(kPixels, end - pixel))});
    }
  }
};

// All channels of a tile, as planes; A is float or double. Beyond its count a plane is left alone.
template <typename A>
void load_planes(const Input& view, const Extent& extent, const PixelTile& tile, A* planes);

template <typename A>
void store_planes(const Output& view, const Extent& extent, const PixelTile& tile, const A* planes);

}  // namespace hvae
