#include "kernels/cuda.h"
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_pixels.cuh"
#include "kernels/dispatch.h"
#include "kernels/logistic_mixture.h"
#include "kernels/mixture_channels.h"
#include "math/logistic.h"
#include "math/philox.h"

namespace hvae {

namespace {

// The component in whose part of the unit interval u lies. The last also takes what rounding
// leaves.
template <typename A, typename At>
__device__ int pick_component(int mixtures, A u, const At& at) {
  A most = at(0);
  for (int m = 1; m < mixtures; ++m) most = at(m) > most ? at(m) : most;
  A sum = 0;
  for (int m = 0; m < mixtures; ++m) sum += exp(at(m) - most);
  const A threshold = u * sum;
  A cumulative = 0;
  int pick = 0;
  for (int m = 0; m + 1 < mixtures; ++m) {
    cumulative += exp(at(m) - most);
    pick += threshold > cumulative ? 1 : 0;
  }
  return pick;
}

template <typename S, int kColours, bool kVector>
__global__ void __launch_bounds__(kPixelThreads)
    sample_blocks(LogisticMixtureSampleParams params, PixelPlan plan) {
  using A = Arithmetic<S>;
  HVAE_DYNAMIC_SHARED(shared);
  A* tile = reinterpret_cast<A*>(shared);
  const PixelBlock block(params.extent, plan);
  load_tile<kVector, S>(params.params, params.extent, plan, block, tile);
  __syncthreads();

  const int index = static_cast<int>(threadIdx.x);
  if (index >= block.count) return;
  const int64_t pixel = block.first + index;
  const auto at = [&](int channel) {
    return tile[index * plan.pixel_step + channel * plan.channel_step];
  };
  const Counter counter = noise_counter(static_cast<uint32_t>(pixel), params.noise.stream,
                                        params.noise.rng[1] + block.sample);
  const Words words = philox4x32(counter, noise_key(params.noise.rng[0]));
  const uint32_t word[] = {words.y, words.z, words.w};

  const MixtureChannels<kColours, int> channels{static_cast<int>(params.mixtures)};
  const int m = pick_component(channels.mixtures, uniform<A>(words.x), at);
  const A last = static_cast<A>((int64_t{1} << params.bits) - 1);
  const A floor = static_cast<A>(params.log_scale_floor);
  const A temperature = static_cast<A>(params.temperature);
  A target[kColours];
#pragma unroll
  for (int j = 0; j < kColours; ++j) {
    A mean = at(channels.mean(j, m));
    if constexpr (kColours == 3) {
      const auto coefficient = [&](int slot) { return tanh_of(at(channels.coefficient(slot, m))); };
      if (j == 1) mean += coefficient(0) * target[0];
      if (j == 2) mean += coefficient(1) * target[0] + coefficient(2) * target[1];
    }
    const A raw = at(channels.log_scale(j, m)), log_scale = raw < floor ? floor : raw;
    const A noise = logistic_of(uniform<A>(word[j]));
    const A level = level_of(mean + temperature * exp(log_scale) * noise, last);
    target[j] = target_of(level, last);
    const int64_t within = params.extent.layout == Layout::kChannelsFirst
                               ? j * params.extent.pixels + pixel
                               : pixel * kColours + j;
    params.levels[block.sample * kColours * params.extent.pixels + within] =
        static_cast<int32_t>(level);
  }
}

}  // namespace

int launch_logistic_mixture_sample_cuda(const LogisticMixtureSampleParams& params, void* stream) {
  const DType dtype = params.params.dtype;
  const PixelPlan plan = plan_pixels(params.extent, dtype);
  if (plan.pixels == 0) return cudaErrorInvalidConfiguration;
  const bool vector = is_vectorizable(params.extent, plan, dtype, params.params);
  return with_kernel_variant(dtype, vector, [&](auto zero, auto is_vector) {
    using S = decltype(zero);
    constexpr bool kVector = decltype(is_vector)::value;
    const auto kernel =
        params.colours == 3 ? sample_blocks<S, 3, kVector> : sample_blocks<S, 1, kVector>;
    return launch(kernel, shape_of(params.extent, plan), stream, params, plan);
  });
}

}  // namespace hvae
