#include "kernels/cuda.h"
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_patch.cuh"
#include "kernels/cuda_reduce.cuh"
#include "kernels/dispatch.h"
#include "kernels/logistic_mixture.h"
#include "math/logistic.h"

// A block copies all channels of its pixels to shared memory, 16 bytes at a time in either layout;
// then each thread works on one pixel, over all its components:
//
//   channels-first   tile[c][pixel]        neighbours in a warp read neighbours in memory
//   channels-last    tile[pixel][c]        rows of odd length, so that they lie in all banks
//
// The gradient takes the place of the parameters in the tile and is copied out in the same way.

namespace hvae {

namespace {

constexpr int kMixtureThreads = 64;
constexpr int kTileBytes = 32 * 1024;

struct MixturePlan {
  int pixels;  // per block; 0: one pixel's channels do not fit
  int64_t blocks_per_sample;
  int pixel_step, channel_step;  // in the tile
};

template <typename A>
MixturePlan plan_mixture(const Extent& extent) {
  const int64_t capacity = kTileBytes / static_cast<int64_t>(sizeof(A));
  const bool first = extent.layout == Layout::kChannelsFirst;
  const int64_t row = first ? extent.channels : extent.channels | 1;
  int64_t pixels = std::min<int64_t>(capacity / row, kMixtureThreads);
  if (pixels >= 8) pixels -= pixels % 8;  // whole vectors
  MixturePlan plan{};
  plan.pixels = static_cast<int>(pixels);
  if (pixels == 0) return plan;
  plan.blocks_per_sample = ceil_div(extent.pixels, pixels);
  plan.pixel_step = first ? 1 : static_cast<int>(row);
  plan.channel_step = first ? plan.pixels : 1;
  return plan;
}

template <typename S>
constexpr int kPackElements = 16 / static_cast<int>(sizeof(S));

// The pixels of a block.
struct PixelBlock {
  int64_t sample, first;
  int count;

  __device__ PixelBlock(const Extent& extent, const MixturePlan& plan)
      : sample(blockIdx.x / plan.blocks_per_sample),
        first(blockIdx.x % plan.blocks_per_sample * plan.pixels) {
    const int64_t left = extent.pixels - first;
    count = left < plan.pixels ? static_cast<int>(left) : plan.pixels;
  }
};

// Calls visit(offset in the sample, place in the tile, step in the tile) for runs of `length`
// elements that cover the block, each run by one thread.
template <typename Visit>
__device__ void for_each_run(const Extent& extent, const MixturePlan& plan, const PixelBlock& block,
                             int64_t pixel_stride, int length, Visit visit) {
  const bool first = extent.layout == Layout::kChannelsFirst;
  const int channels = static_cast<int>(extent.channels);
  const int row = first ? block.count : channels, rows = first ? channels : block.count;
  const int runs = row / length;
  for (int i = static_cast<int>(threadIdx.x); i < rows * runs; i += static_cast<int>(blockDim.x)) {
    const int at_row = i / runs, at = i % runs * length;
    if (first) {
      visit(at_row * extent.pixels + block.first + at, at_row * plan.channel_step + at);
    } else {
      visit((block.first + at_row) * pixel_stride + at, at_row * plan.pixel_step + at);
    }
  }
}

template <bool kVector, typename S>
__device__ void load_tile(const Input& view, const Extent& extent, const MixturePlan& plan,
                          const PixelBlock& block, Arithmetic<S>* tile) {
  const S* source = static_cast<const S*>(view.data) + block.sample * view.batch_stride;
  constexpr int kLength = kVector ? kPackElements<S> : 1;
  for_each_run(extent, plan, block, view.pixel_stride, kLength, [&](int64_t offset, int place) {
    if constexpr (kVector) {
      const uint4 bits = *reinterpret_cast<const uint4*>(source + offset);
      Pack<S, kLength> pack;
      memcpy(&pack, &bits, sizeof bits);
#pragma unroll
      for (int i = 0; i < kLength; ++i) tile[place + i] = widen(pack.values[i]);
    } else {
      tile[place] = widen(source[offset]);
    }
  });
}

template <bool kVector, typename S>
__device__ void store_tile(const Output& view, const Extent& extent, const MixturePlan& plan,
                           const PixelBlock& block, const Arithmetic<S>* tile) {
  S* target = static_cast<S*>(view.data) + block.sample * view.batch_stride;
  constexpr int kLength = kVector ? kPackElements<S> : 1;
  for_each_run(extent, plan, block, view.pixel_stride, kLength, [&](int64_t offset, int place) {
    if constexpr (kVector) {
      Pack<S, kLength> pack;
#pragma unroll
      for (int i = 0; i < kLength; ++i) pack.values[i] = narrow<S>(tile[place + i]);
      uint4 bits;
      memcpy(&bits, &pack, sizeof bits);
      __stcs(reinterpret_cast<uint4*>(target + offset), bits);
    } else {
      target[offset] = narrow<S>(tile[place]);
    }
  });
}

// Running ln of a sum of e^x.
template <typename A>
struct LogSum {
  A most, sum;

  __device__ void add(A x) {
    if (x > most) {
      sum = sum * exp(most - x) + 1;
      most = x;
    } else {
      sum += exp(x - most);
    }
  }
};

// One pixel: its levels, and its channels in the tile.
template <int kColours, typename A>
struct Pixel {
  A* tile;
  int channel_step, mixtures;
  A target[kColours];
  Edge edge[kColours];
  A delta, log_two_delta, floor;

  __device__ A& at(int channel) const { return tile[channel * channel_step]; }
  __device__ int mean(int colour, int m) const {
    return mixtures * (1 + (kColours == 3 ? 3 : 2) * colour) + m;
  }
  __device__ int log_scale(int colour, int m) const { return mean(colour, m) + mixtures; }
  __device__ int coefficient(int colour, int m) const { return mean(colour, m) + 2 * mixtures; }

  struct Component {
    A coefficient[3];
    A a[kColours], b[kColours], width[kColours], inverse[kColours];
    Decays<A> decay[kColours];
    A log_joint;
  };

  __device__ Component component(int m) const {
    Component c;
    A linear = at(m), n = 1, d = 1;
#pragma unroll
    for (int j = 0; j < 3; ++j) {
      c.coefficient[j] = kColours == 3 ? tanh_of(at(coefficient(j, m))) : A{0};
    }
#pragma unroll
    for (int j = 0; j < kColours; ++j) {
      A centred = target[j] - at(mean(j, m));
      if (j == 1) centred -= c.coefficient[0] * target[0];
      if (j == 2) centred -= c.coefficient[1] * target[0] + c.coefficient[2] * target[1];
      const A raw = at(log_scale(j, m)), bounded = raw < floor ? floor : raw;
      c.inverse[j] = exp(-bounded);
      c.a[j] = (centred + delta) * c.inverse[j];
      c.b[j] = (centred - delta) * c.inverse[j];
      c.width[j] = 2 * delta * c.inverse[j];
      c.decay[j] = {exp_minus_abs(c.a[j]), exp_minus_abs(c.b[j]), exp_minus_abs(c.width[j])};
      const LogMass<A> mass =
          log_mass(c.a[j], c.b[j], c.width[j], bounded, log_two_delta, c.decay[j], edge[j]);
      linear += mass.linear;
      n *= mass.n;
      d *= mass.d;
    }
    c.log_joint = linear + log_normal_range(n / d);
    return c;
  }

  // Puts the gradient of one component in the place of its parameters.
  __device__ void write_gradient(int m, A weight, A logit_grad) const {
    const Component c = component(m);
    A shift[kColours];  // slopes in the means
#pragma unroll
    for (int j = 0; j < kColours; ++j) {
      const MassSlopes<A> slopes = mass_slopes(c.a[j], c.b[j], c.width[j], c.decay[j], edge[j]);
      const A raw = at(log_scale(j, m));
      shift[j] = weight * slopes.mean * c.inverse[j];
      at(mean(j, m)) = shift[j];
      at(log_scale(j, m)) = raw < floor ? A{0} : weight * slopes.log_scale;
    }
    if constexpr (kColours == 3) {
      const A moved[3] = {shift[1] * target[0], shift[2] * target[0], shift[2] * target[1]};
#pragma unroll
      for (int j = 0; j < 3; ++j) {
        at(coefficient(j, m)) = moved[j] * (1 - c.coefficient[j] * c.coefficient[j]);
      }
    }
    at(m) = logit_grad;
  }
};

__device__ inline int64_t level_at(const LevelsView& x, int64_t index) {
  if (x.bytes == 1) return static_cast<const uint8_t*>(x.data)[index];
  if (x.bytes == 2) return static_cast<const int16_t*>(x.data)[index];
  return static_cast<const int32_t*>(x.data)[index];
}

template <int kColours, typename A>
__device__ Pixel<kColours, A> pixel_of(const LogisticMixtureNllParams& params,
                                       const MixturePlan& plan, const PixelBlock& block, int index,
                                       A* tile) {
  const bool first = params.extent.layout == Layout::kChannelsFirst;
  const int64_t last = (int64_t{1} << params.bits) - 1;
  const int64_t at = block.first + index;
  Pixel<kColours, A> pixel;
  pixel.tile = tile + index * plan.pixel_step;
  pixel.channel_step = plan.channel_step;
  pixel.mixtures = static_cast<int>(params.mixtures);
  pixel.delta = 1 / static_cast<A>(last);
  pixel.log_two_delta = log(2 * pixel.delta);
  pixel.floor = static_cast<A>(params.log_scale_floor);
#pragma unroll
  for (int j = 0; j < kColours; ++j) {
    const int64_t offset = block.sample * params.x.batch_stride +
                           (first ? j * params.extent.pixels + at : at * params.x.pixel_stride + j);
    const int64_t level = level_at(params.x, offset);
    pixel.target[j] = static_cast<A>(2 * level - last) / static_cast<A>(last);
    pixel.edge[j] = {level == 0, level == last};
  }
  return pixel;
}

template <typename S, int kColours, bool kVector>
__global__ void __launch_bounds__(kMixtureThreads)
    nll_blocks(LogisticMixtureNllParams params, MixturePlan plan) {
  using A = Arithmetic<S>;
  __shared__ A tile[kTileBytes / sizeof(A)];
  const PixelBlock block(params.extent, plan);
  load_tile<kVector, S>(params.params, params.extent, plan, block, tile);
  __syncthreads();

  const int index = static_cast<int>(threadIdx.x);
  A nll = 0;
  if (index < block.count) {
    const Pixel<kColours, A> pixel = pixel_of<kColours>(params, plan, block, index, tile);
    LogSum<A> joint{pixel.component(0).log_joint, 1}, logits{pixel.at(0), 1};
    for (int m = 1; m < pixel.mixtures; ++m) {
      joint.add(pixel.component(m).log_joint);
      logits.add(pixel.at(m));
    }
    nll = (logits.most - joint.most) + log_normal_range(logits.sum / joint.sum);
    const int64_t place = block.sample * params.extent.pixels + block.first + index;
    if (params.nll.data != nullptr && params.per_pixel) {
      static_cast<A*>(params.nll.data)[place] = nll;
    }
    if (params.grad.data != nullptr) {
      const A* given = static_cast<const A*>(params.grad_nll.data);
      const A grad = given == nullptr ? A{1} : given[params.per_pixel ? place : block.sample];
      for (int m = 0; m < pixel.mixtures; ++m) {
        const A weight = grad * exp(pixel.component(m).log_joint - joint.most) / joint.sum;
        const A prior = grad * exp(pixel.at(m) - logits.most) / logits.sum;
        pixel.write_gradient(m, weight, prior - weight);
      }
    }
  }
  if (params.nll.data != nullptr && !params.per_pixel) {
    const A sum = sum_row(nll);
    if (threadIdx.x == 0) static_cast<A*>(params.partials)[blockIdx.x] = sum;
  }
  if (params.grad.data != nullptr) {
    __syncthreads();
    store_tile<kVector, S>(params.grad, params.extent, plan, block, tile);
  }
}

// Whether all copies may go 16 bytes at a time.
template <typename... Views>
bool is_vectorizable(const Extent& extent, const MixturePlan& plan, DType dtype,
                     const Views&... views) {
  const bool first = extent.layout == Layout::kChannelsFirst;
  const int elements = 16 / bytes_of(dtype);
  const int64_t row = first ? extent.pixels : extent.channels;
  const bool whole = row % elements == 0 && (!first || plan.pixels % elements == 0);
  return whole && (is_vector_view(views, extent, elements, bytes_of(dtype)) && ...);
}

}  // namespace

int64_t count_logistic_mixture_partials_cuda(const LogisticMixtureCommon& params) {
  return with_arithmetic(params.params.dtype, [&](auto zero) {
    return params.extent.batch * plan_mixture<decltype(zero)>(params.extent).blocks_per_sample;
  });
}

int launch_logistic_mixture_nll_cuda(const LogisticMixtureNllParams& params, void* stream) {
  const DType dtype = params.params.dtype;
  const MixturePlan plan = with_arithmetic(
      dtype, [&](auto zero) { return plan_mixture<decltype(zero)>(params.extent); });
  if (plan.pixels == 0) return cudaErrorInvalidConfiguration;
  const int64_t blocks = params.extent.batch * plan.blocks_per_sample;
  const bool vector = is_vectorizable(params.extent, plan, dtype, params.params, params.grad);
  const int error = with_kernel_variant(dtype, vector, [&](auto zero, auto is_vector) {
    using S = decltype(zero);
    constexpr bool kVector = decltype(is_vector)::value;
    const auto kernel = params.colours == 3 ? nll_blocks<S, 3, kVector> : nll_blocks<S, 1, kVector>;
    return launch(kernel, blocks, dim3(kMixtureThreads), stream, params, plan);
  });
  if (error != cudaSuccess || params.nll.data == nullptr || params.per_pixel) return error;
  return with_arithmetic(dtype, [&](auto zero) {
    return launch_add_partials<decltype(zero)>(params.partials, plan.blocks_per_sample,
                                               params.extent.batch, params.nll.data, stream);
  });
}

}  // namespace hvae
