#include "kernels/cuda.h"
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_pixels.cuh"
#include "kernels/cuda_reduce.cuh"
#include "kernels/dispatch.h"
#include "kernels/logistic_mixture.h"
#include "kernels/mixture_channels.h"
#include "math/logistic.h"

// A thread works on one pixel of its block's tile, over all its components. The gradient takes the
// place of the parameters in the tile.

namespace hvae {

namespace {

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
  int channel_step;
  MixtureChannels<kColours, int> channels;
  A target[kColours];
  Edge edge[kColours];
  A delta, log_two_delta, floor;

  __device__ A& at(int channel) const { return tile[channel * channel_step]; }

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
      c.coefficient[j] = kColours == 3 ? tanh_of(at(channels.coefficient(j, m))) : A{0};
    }
#pragma unroll
    for (int j = 0; j < kColours; ++j) {
      A centred = target[j] - at(channels.mean(j, m));
      if (j == 1) centred -= c.coefficient[0] * target[0];
      if (j == 2) centred -= c.coefficient[1] * target[0] + c.coefficient[2] * target[1];
      const A raw = at(channels.log_scale(j, m)), bounded = raw < floor ? floor : raw;
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

  // Puts the gradient of component m in the place of its parameters.
  __device__ void write_gradient(int m, const Component& c, A weight, A logit_grad) const {
    A shift[kColours];  // slopes in the means
#pragma unroll
    for (int j = 0; j < kColours; ++j) {
      const MassSlopes<A> slopes = mass_slopes(c.a[j], c.b[j], c.width[j], c.decay[j], edge[j]);
      const A raw = at(channels.log_scale(j, m));
      shift[j] = weight * slopes.mean * c.inverse[j];
      at(channels.mean(j, m)) = shift[j];
      at(channels.log_scale(j, m)) = raw < floor ? A{0} : weight * slopes.log_scale;
    }
    if constexpr (kColours == 3) {
      const A moved[3] = {shift[1] * target[0], shift[2] * target[0], shift[2] * target[1]};
#pragma unroll
      for (int j = 0; j < 3; ++j) {
        at(channels.coefficient(j, m)) = moved[j] * (1 - c.coefficient[j] * c.coefficient[j]);
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
                                       const PixelPlan& plan, const PixelBlock& block, int index,
                                       A* tile) {
  const bool first = params.extent.layout == Layout::kChannelsFirst;
  const int64_t last = (int64_t{1} << params.bits) - 1;
  const int64_t at = block.first + index;
  Pixel<kColours, A> pixel;
  pixel.tile = tile + index * plan.pixel_step;
  pixel.channel_step = plan.channel_step;
  pixel.channels = {static_cast<int>(params.mixtures)};
  pixel.delta = 1 / static_cast<A>(last);
  pixel.log_two_delta = log(2 * pixel.delta);
  pixel.floor = static_cast<A>(params.log_scale_floor);
#pragma unroll
  for (int j = 0; j < kColours; ++j) {
    const int64_t offset = block.sample * params.x.batch_stride +
                           (first ? j * params.extent.pixels + at : at * params.x.pixel_stride + j);
    const int64_t level = level_at(params.x, offset);
    pixel.target[j] = target_of(static_cast<A>(level), static_cast<A>(last));
    pixel.edge[j] = {level == 0, level == last};
  }
  return pixel;
}

template <typename S, int kColours, bool kVector>
__global__ void __launch_bounds__(kPixelThreads)
    nll_blocks(LogisticMixtureNllParams params, PixelPlan plan) {
  using A = Arithmetic<S>;
  HVAE_DYNAMIC_SHARED(shared);
  A* tile = reinterpret_cast<A*>(shared);
  const int mixtures = static_cast<int>(params.mixtures);
  const PixelBlock block(params.extent, plan);
  load_tile<kVector, S>(params.params, params.extent, plan, block, tile);
  __syncthreads();

  const int index = static_cast<int>(threadIdx.x);
  A nll = 0;
  if (index < block.count) {
    const Pixel<kColours, A> pixel = pixel_of<kColours>(params, plan, block, index, tile);
    LogSum<A> joint{pixel.component(0).log_joint, 1}, logits{pixel.at(0), 1};
    for (int m = 1; m < mixtures; ++m) {
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
      for (int m = 0; m < mixtures; ++m) {
        const typename Pixel<kColours, A>::Component component = pixel.component(m);
        const A weight = grad * exp(component.log_joint - joint.most) / joint.sum;
        const A prior = grad * exp(pixel.at(m) - logits.most) / logits.sum;
        pixel.write_gradient(m, component, weight, prior - weight);
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

}  // namespace

int64_t count_logistic_mixture_partials_cuda(const LogisticMixtureCommon& params) {
  return params.extent.batch * plan_pixels(params.extent, params.params.dtype).blocks_per_sample;
}

int launch_logistic_mixture_nll_cuda(const LogisticMixtureNllParams& params, void* stream) {
  const DType dtype = params.params.dtype;
  const PixelPlan plan = plan_pixels(params.extent, dtype);
  if (plan.pixels == 0) return cudaErrorInvalidConfiguration;
  const bool vector = is_vectorizable(params.extent, plan, dtype, params.params, params.grad);
  const int error = with_kernel_variant(dtype, vector, [&](auto zero, auto is_vector) {
    using S = decltype(zero);
    constexpr bool kVector = decltype(is_vector)::value;
    const auto kernel = params.colours == 3 ? nll_blocks<S, 3, kVector> : nll_blocks<S, 1, kVector>;
    return launch(kernel, shape_of(params.extent, plan), stream, params, plan);
  });
  if (error != cudaSuccess || params.nll.data == nullptr || params.per_pixel) return error;
  return with_arithmetic(dtype, [&](auto zero) {
    return launch_add_partials<decltype(zero)>(params.partials, plan.blocks_per_sample,
                                               params.extent.batch, params.nll.data, stream);
  });
}

}  // namespace hvae
