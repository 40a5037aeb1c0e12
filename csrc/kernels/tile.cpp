#include "kernels/tile.h"

#include "kernels/dispatch.h"
#include "kernels/philox_words.h"
#include "kernels/simd.h"
#include "math/philox.h"

namespace hvae {

namespace {

constexpr int64_t kFewestTileChannels = 16;  // a cache line of floats per row
constexpr int64_t kMostTileChannels = 128;
// Runs of 32 pixels of 16 channels, each touching one block more than it fills.
constexpr int kMostTileBlocks = 144;

template <typename From, typename To>
HVAE_CLONES void copy_rows(const From* source, int64_t source_stride, To* target,
                           int64_t target_stride, int rows, int length) {
  for (int row = 0; row < rows; ++row) {
    const From* __restrict from = source + row * source_stride;
    To* __restrict to = target + row * target_stride;
#pragma omp simd
    for (int i = 0; i < length; ++i) to[i] = narrow<To>(widen(from[i]));
  }
}

template <typename A>
HVAE_CLONES void normals_of(int count, const uint32_t* __restrict x, const uint32_t* __restrict y,
                            const uint32_t* __restrict z, const uint32_t* __restrict w,
                            A* __restrict lanes) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const Normals<A> n = normal4<A>({x[i], y[i], z[i], w[i]});
    lanes[4 * i] = n.x;
    lanes[4 * i + 1] = n.y;
    lanes[4 * i + 2] = n.z;
    lanes[4 * i + 3] = n.w;
  }
}

template <typename A>
constexpr DType kDTypeOf = sizeof(A) == sizeof(double) ? DType::kFloat64 : DType::kFloat32;

// Whether a tile's elements follow each other in the tensor, in the arithmetic type.
template <typename A, typename Pointer>
bool is_in_place(const View<Pointer>& view, const Tile& tile) {
  return view.dtype == kDTypeOf<A> && (tile.rows == 1 || view.pixel_stride == tile.row_length);
}

template <typename Pointer>
int64_t offset_of(const View<Pointer>& view, const Extent& extent, const Tile& tile,
                  int64_t channel_offset) {
  return offset_in(view, extent, tile.sample, tile.channel + channel_offset, tile.pixel);
}

// The blocks that hold the noise of a tile, each once, and where in them each channel's run begins.
struct TileBlocks {
  uint32_t blocks[kMostTileBlocks] = {};
  int count = 0;
  int run_start[kMostTileChannels];

  void add_run(int channel, int64_t element, int length) {
    const uint32_t first = static_cast<uint32_t>(element / 4);
    const uint32_t last = static_cast<uint32_t>((element + length - 1) / 4);
    const bool shared = count > 0 && blocks[count - 1] == first;
    run_start[channel] = 4 * (shared ? count - 1 : count) + static_cast<int>(element % 4);
    const uint32_t start = first + shared;
    const int added = static_cast<int>(last + 1 - start);
#pragma omp simd
    for (int i = 0; i < added; ++i) blocks[count + i] = start + static_cast<uint32_t>(i);
    count += added;
  }

  // The normals of all blocks, four lanes each.
  template <typename A>
  void draw(const NoiseSource& source, A* lanes) const {
    PlanarWords<kMostTileBlocks> words;
    draw_words(source, blocks, count, words.x, words.y, words.z, words.w);
    normals_of(count, words.x, words.y, words.z, words.w, lanes);
  }
};

}  // namespace

Tasks::Tasks(const Extent& extent, int64_t groups)
    : extent_(extent), groups_(std::max<int64_t>(groups, 1)), chunk_units_(kChunk) {
  if (channels_last()) {
    const int64_t pixels = std::max<int64_t>(extent.pixels, 1);
    const int64_t widest =
        std::clamp(kTileCapacity / pixels, kFewestTileChannels, kMostTileChannels);
    tile_channels_ = std::clamp<int64_t>(extent.channels, 1, widest);
    tile_pixels_ = std::min(pixels, kTileCapacity / tile_channels_);
    if (tile_pixels_ < pixels) tile_pixels_ -= tile_pixels_ % 4;  // tiles then share few blocks
    const int64_t tiles = kChunk / (tile_pixels_ * std::max<int64_t>(extent.channels, 1));
    chunk_units_ = tile_pixels_ * std::max<int64_t>(tiles, 1);
  }
  chunks_ = ceil_div(units(), chunk_units_);
}

Task Tasks::operator[](int64_t index) const {
  const int64_t chunk = index % chunks_;
  const int64_t group = index / chunks_ % task_groups();
  const int64_t first = chunk * chunk_units_;
  return {index / chunks_ / task_groups(), group, chunk, first,
          std::min(chunk_units_, units() - first)};
}

template <typename A>
const A* load_tile(const Input& view, const Extent& extent, const Tile& tile,
                   int64_t channel_offset, A* scratch) {
  const int64_t offset = offset_of(view, extent, tile, channel_offset);
  if (is_in_place<A>(view, tile)) return static_cast<const A*>(view.data) + offset;
  with_storage(view.dtype, [&](auto tag) {
    using S = decltype(tag);
    copy_rows(static_cast<const S*>(view.data) + offset, view.pixel_stride, scratch,
              tile.row_length, tile.rows, tile.row_length);
  });
  return scratch;
}

template <typename A>
A* stage_tile(const Output& view, const Extent& extent, const Tile& tile, int64_t channel_offset,
              A* scratch) {
  if (!is_in_place<A>(view, tile)) return scratch;
  return static_cast<A*>(view.data) + offset_of(view, extent, tile, channel_offset);
}

template <typename A>
void store_tile(const Output& view, const Extent& extent, const Tile& tile, int64_t channel_offset,
                const A* staged) {
  if (is_in_place<A>(view, tile)) return;
  const int64_t offset = offset_of(view, extent, tile, channel_offset);
  with_storage(view.dtype, [&](auto tag) {
    using S = decltype(tag);
    copy_rows(staged, tile.row_length, static_cast<S*>(view.data) + offset, view.pixel_stride,
              tile.rows, tile.row_length);
  });
}

template <typename A>
const A* noise_tile(const Noise& noise, const Extent& extent, const Tile& tile, A* scratch) {
  if (noise.eps.data != nullptr) return load_tile(noise.eps, extent, tile, 0, scratch);

  const NoiseSource source{noise.rng[0], noise.rng[1] + tile.sample, noise.stream};
  const int64_t element = tile.channel * extent.pixels + tile.pixel;
  TileBlocks runs;
  if (tile.is_run) {
    runs.add_run(0, element, tile.row_length);
    runs.draw(source, scratch);
    return scratch + runs.run_start[0];
  }
  alignas(64) A lanes[4 * kMostTileBlocks];
  for (int channel = 0; channel < tile.row_length; ++channel) {
    runs.add_run(channel, element + channel * extent.pixels, tile.rows);
  }
  runs.draw(source, lanes);
  for (int channel = 0; channel < tile.row_length; ++channel) {
    const A* run = lanes + runs.run_start[channel];
    for (int row = 0; row < tile.rows; ++row) scratch[row * tile.row_length + channel] = run[row];
  }
  return scratch;
}

#define HVAE_INSTANTIATE(A)                                                                  \
  template const A* load_tile<A>(const Input&, const Extent&, const Tile&, int64_t, A*);     \
  template A* stage_tile<A>(const Output&, const Extent&, const Tile&, int64_t, A*);         \
  template void store_tile<A>(const Output&, const Extent&, const Tile&, int64_t, const A*); \
  template const A* noise_tile<A>(const Noise&, const Extent&, const Tile&, A*);
HVAE_INSTANTIATE(float)
HVAE_INSTANTIATE(double)
#undef HVAE_INSTANTIATE

}  // namespace hvae
