// How the CPU kernels walk over tensors: tasks, chunks, tiles.
//
// A tile is a block of one sample that fits in L1. Its elements are numbered densely, and whatever
// their dtype and layout, the arithmetic sees them as plain arrays of float or double:
//
//   channels-first   one row: a run of elements e = c * N + s, which may cross channels
//   channels-last    a row per pixel, of adjacent channels
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "kernels/arguments.h"
#include "math/reduce.h"

namespace hvae {

constexpr int kTileCapacity = 512;

struct Tile {
  int64_t sample;
  int64_t channel, pixel;  // of the first element
  bool is_run;             // channels-first
  int rows, row_length;

  int size() const { return rows * row_length; }
};

template <typename A>
struct TileBuffer {
  alignas(64) A values[kTileCapacity + 8];  // a run of noise comes with whole Philox blocks
};

// A task: one chunk of one sample, and in channels-first layout of one group of channels.
struct Task {
  int64_t sample;
  int64_t group;         // channels-first only
  int64_t chunk;         // within the sample or group
  int64_t first, count;  // elements of the group, or pixels of the sample
};

// The tasks over (B, C, N), where sums over the elements of each of `groups` runs of channels are
// wanted. groups = 0 counts as 1.
class Tasks {
 public:
  Tasks(const Extent& extent, int64_t groups);

  const Extent& extent() const { return extent_; }
  int64_t count() const { return extent_.batch * task_groups() * chunks_; }
  int64_t chunks() const { return chunks_; }
  int64_t groups() const { return groups_; }
  int64_t channels_per_group() const { return extent_.channels / groups_; }
  Task operator[](int64_t index) const;

  // The groups that a task contributes to, [first, last).
  std::pair<int64_t, int64_t> groups_of(const Task& task) const {
    return channels_last() ? std::pair{int64_t{0}, groups_} : std::pair{task.group, task.group + 1};
  }

  // Calls visit(task) for those of the tasks begin, ..., end - 1 that exist.
  template <typename Visit>
  void for_each(int64_t begin, int64_t end, Visit visit) const {
    for (int64_t i = std::max<int64_t>(begin, 0); i < std::min(end, count()); ++i) {
      visit((*this)[i]);
    }
  }

  // Calls visit(tile) for the tiles of a task, in order.
  template <typename Visit>
  void for_each_tile(const Task& task, Visit visit) const;

 private:
  bool channels_last() const { return extent_.layout == Layout::kChannelsLast; }
  int64_t task_groups() const { return channels_last() ? 1 : groups_; }
  int64_t units() const {  // that chunks are cut from
    if (extent_.channels == 0) return 0;
    return channels_last() ? extent_.pixels : channels_per_group() * extent_.pixels;
  }

  Extent extent_;
  int64_t groups_;
  int64_t tile_channels_ = 0, tile_pixels_ = 0;  // channels-last
  int64_t chunk_units_;
  int64_t chunks_;
};

// The values of a tile, as an array: in place where that is possible, else copied to `scratch`.
// `channel_offset` is added to the tile's channels: 0 for means, C for raw stds, 2C for h.
template <typename A>
const A* load_tile(const Input& view, const Extent& extent, const Tile& tile,
                   int64_t channel_offset, A* scratch);

// Where to compute the values of a tile: in place where that is possible, else `scratch`.
template <typename A>
A* stage_tile(const Output& view, const Extent& extent, const Tile& tile, int64_t channel_offset,
              A* scratch);

// Stores what was computed at the place that stage_tile returned.
template <typename A>
void store_tile(const Output& view, const Extent& extent, const Tile& tile, int64_t channel_offset,
                const A* staged);

// eps of a tile: loaded if given, else drawn. `scratch` is a whole TileBuffer.
template <typename A>
const A* noise_tile(const Noise& noise, const Extent& extent, const Tile& tile, A* scratch);

template <typename Visit>
void Tasks::for_each_tile(const Task& task, Visit visit) const {
  if (!channels_last()) {
    const int64_t group_start = task.group * channels_per_group() * extent_.pixels;
    for (int64_t done = 0; done < task.count; done += kTileCapacity) {
      const int64_t element = group_start + task.first + done;
      const int64_t length = std::min<int64_t>(kTileCapacity, task.count - done);
      visit(Tile{task.sample, element / extent_.pixels, element % extent_.pixels, true, 1,
                 static_cast<int>(length)});
    }
    return;
  }
  for (int64_t done = 0; done < task.count; done += tile_pixels_) {
    const int64_t rows = std::min(tile_pixels_, task.count - done);
    for (int64_t channel = 0; channel < extent_.channels; channel += tile_channels_) {
      const int64_t length = std::min(tile_channels_, extent_.channels - channel);
      visit(Tile{task.sample, channel, task.first + done, false, static_cast<int>(rows),
                 static_cast<int>(length)});
    }
  }
}

}  // namespace hvae
