#include <algorithm>
#include <vector>

#include "kernels/dispatch.h"
#include "kernels/logistic_mixture.h"
#include "kernels/mixture_channels.h"
#include "kernels/philox_words.h"
#include "kernels/pixel_tile.h"
#include "kernels/simd.h"
#include "math/logistic.h"
#include "math/philox.h"

namespace hvae {

namespace {

// The arithmetic, on dense arrays of kPixels values.

template <typename A>
HVAE_CLONES void uniforms_of(const uint32_t* __restrict words, A* __restrict u) {
#pragma omp simd
  for (int i = 0; i < kPixels; ++i) u[i] = uniform<A>(words[i]);
}

template <typename A>
HVAE_CLONES void logistics_of(const uint32_t* __restrict words, A* __restrict noise) {
#pragma omp simd
  for (int i = 0; i < kPixels; ++i) noise[i] = logistic_of(uniform<A>(words[i]));
}

template <typename A>
HVAE_CLONES void max_values(const A* __restrict x, A* __restrict most) {
#pragma omp simd
  for (int i = 0; i < kPixels; ++i) most[i] = x[i] > most[i] ? x[i] : most[i];
}

// Adds e^(logit - most) to the sum, and leaves in `logit` what the sum then is.
template <typename A>
HVAE_CLONES void accumulate_weights(const A* __restrict most, A* __restrict logit,
                                    A* __restrict sum) {
#pragma omp simd
  for (int i = 0; i < kPixels; ++i) {
    sum[i] += exp(logit[i] - most[i]);
    logit[i] = sum[i];
  }
}

template <typename A>
HVAE_CLONES void scale_values(const A* __restrict by, A* __restrict x) {
#pragma omp simd
  for (int i = 0; i < kPixels; ++i) x[i] *= by[i];
}

// Counts where the threshold lies beyond a component's part of the unit interval.
template <typename A>
HVAE_CLONES void count_beyond(const A* __restrict cumulative, const A* __restrict threshold,
                              int32_t* __restrict pick) {
#pragma omp simd
  for (int i = 0; i < kPixels; ++i) pick[i] += threshold[i] > cumulative[i] ? 1 : 0;
}

template <typename A>
HVAE_CLONES void add_coupling(const A* __restrict raw, const A* __restrict target,
                              A* __restrict mean) {
#pragma omp simd
  for (int i = 0; i < kPixels; ++i) mean[i] += tanh_of(raw[i]) * target[i];
}

template <typename A>
HVAE_CLONES void draw_levels(const A* __restrict mean, const A* __restrict raw_log_scale,
                             const A* __restrict noise, A floor, A temperature, A last,
                             int32_t* __restrict level, A* __restrict target) {
#pragma omp simd
  for (int i = 0; i < kPixels; ++i) {
    const A log_scale = raw_log_scale[i] < floor ? floor : raw_log_scale[i];
    const A k = level_of(mean[i] + temperature * exp(log_scale) * noise[i], last);
    level[i] = static_cast<int32_t>(k);
    target[i] = target_of(k, last);
  }
}

// What a thread needs to work on one tile after the other.
template <typename A>
struct Workspace {
  explicit Workspace(int64_t channels) : params(channels * kSlabStride) {}

  std::vector<A> params;
  PlanarWords<kPixels> words;
  alignas(64) uint32_t blocks[kPixels];
  alignas(64) int32_t pick[kPixels];
  alignas(64) Plane<A> most, sum, threshold, noise, mean, raw;
  alignas(64) Plane<A> target[3];
  alignas(64) Plane<int32_t> level[3];
};

// A Philox block per pixel.
template <typename A>
void draw_tile_words(const Noise& noise, const PixelRun& tile, Workspace<A>& work) {
  const NoiseSource source{noise.rng[0], noise.rng[1] + tile.sample, noise.stream};
  for (int i = 0; i < kPixels; ++i) work.blocks[i] = static_cast<uint32_t>(tile.first + i);
  draw_words(source, work.blocks, kPixels, work.words.x, work.words.y, work.words.z, work.words.w);
}

// The component of each pixel: the one in whose part of the unit interval its word 0 lies. The last
// also takes what rounding leaves.
template <typename A>
void pick_components(int64_t mixtures, int offset, Workspace<A>& work) {
  A* logits = work.params.data() + offset;
  std::copy_n(logits, kPixels, work.most);
  for (int64_t m = 1; m < mixtures; ++m) max_values(logits + m * kSlabStride, work.most);
  std::fill_n(work.sum, kPixels, A{0});
  for (int64_t m = 0; m < mixtures; ++m) {
    accumulate_weights(work.most, logits + m * kSlabStride, work.sum);
  }
  uniforms_of(work.words.x, work.threshold);
  scale_values(work.sum, work.threshold);
  std::fill_n(work.pick, kPixels, 0);
  for (int64_t m = 0; m + 1 < mixtures; ++m) {
    count_beyond(logits + m * kSlabStride, work.threshold, work.pick);
  }
}

// The picked components' planes of one kind, whose first component's plane is `planes`.
template <typename A>
void gather(const A* planes, const int32_t* pick, A* values) {
  for (int i = 0; i < kPixels; ++i) values[i] = planes[pick[i] * kSlabStride + i];
}

template <int kColours, typename A>
void draw_tile(const LogisticMixtureSampleParams& params, int offset, Workspace<A>& work) {
  const MixtureChannels<kColours, int64_t> channels{params.mixtures};
  const A last = static_cast<A>((int64_t{1} << params.bits) - 1);
  const A floor = static_cast<A>(params.log_scale_floor);
  const A temperature = static_cast<A>(params.temperature);
  const A* planes = work.params.data() + offset;
  const uint32_t* words[] = {work.words.y, work.words.z, work.words.w};
  pick_components(params.mixtures, offset, work);
  for (int j = 0; j < kColours; ++j) {
    gather(planes + channels.mean(j, 0) * kSlabStride, work.pick, work.mean);
    if constexpr (kColours == 3) {
      for (const Coupling& c : kCouplings) {
        if (c.shifted != j) continue;
        gather(planes + channels.coefficient(c.slot, 0) * kSlabStride, work.pick, work.raw);
        add_coupling(work.raw, work.target[c.source], work.mean);
      }
    }
    gather(planes + channels.log_scale(j, 0) * kSlabStride, work.pick, work.raw);
    logistics_of(words[j], work.noise);
    draw_levels(work.mean, work.raw, work.noise, floor, temperature, last, work.level[j],
                work.target[j]);
  }
}

void store_levels(const LogisticMixtureSampleParams& params, const PixelRun& tile,
                  const Plane<int32_t>* level) {
  const int64_t pixels = params.extent.pixels, colours = params.colours;
  int32_t* sample = params.levels + tile.sample * colours * pixels;
  for (int64_t j = 0; j < colours; ++j) {
    if (params.extent.layout == Layout::kChannelsFirst) {
      std::copy_n(level[j], tile.count, sample + j * pixels + tile.first);
    } else {
      int32_t* target = sample + tile.first * colours + j;
      for (int i = 0; i < tile.count; ++i) target[i * colours] = level[j][i];
    }
  }
}

template <int kColours, typename A>
void run_tasks(const LogisticMixtureSampleParams& params, int64_t begin, int64_t end) {
  const PixelTasks tasks(params.extent);
  Workspace<A> work(params.extent.channels);
  for (int64_t task = begin; task < end; ++task) {
    tasks.for_each_slab(task, [&](const PixelRun& slab) {
      load_planes(params.params, params.extent, slab, work.params.data());
      for (int offset = 0; offset < slab.count; offset += kPixels) {
        const PixelRun tile = slab.tile(offset);
        draw_tile_words(params.noise, tile, work);
        draw_tile<kColours>(params, offset, work);
        store_levels(params, tile, work.level);
      }
    });
  }
}

}  // namespace

void launch_logistic_mixture_sample_cpu(const LogisticMixtureSampleParams& params, int64_t begin,
                                        int64_t end) {
  with_colours(params.colours, params.params.dtype, [&](auto colours, auto zero) {
    run_tasks<colours, decltype(zero)>(params, begin, end);
  });
}

}  // namespace hvae
