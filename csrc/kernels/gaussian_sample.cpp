#include "kernels/gaussian_sample.h"

#include <algorithm>

#include "kernels/dispatch.h"
#include "kernels/residual.h"
#include "kernels/simd.h"
#include "kernels/tile.h"

namespace hvae {

namespace {

template <StdForm form, typename A>
HVAE_CLONES void forward_values(int count, const A* __restrict mean, const A* __restrict raw,
                                const A* __restrict eps, A floor, A temperature, A* __restrict z) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    z[i] = sample<form>(mean[i], raw[i], eps[i], floor, temperature);
  }
}

template <StdForm form, typename A>
HVAE_CLONES void backward_values(int count, const A* __restrict raw, const A* __restrict eps,
                                 const A* __restrict grad_z, A floor, A temperature,
                                 A* __restrict grad_mean, A* __restrict grad_raw) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const SampleGrad<A> grad = sample_grad<form>(raw[i], eps[i], grad_z[i], floor, temperature);
    grad_mean[i] = grad.mean;
    grad_raw[i] = grad.raw;
  }
}

Tasks latent_tasks(const GaussianSampleCommon& params) { return {params.latent, 1}; }

template <StdForm form, typename A>
void forward_task(const GaussianSampleParams& params, const Tasks& tasks, const Task& task) {
  const Extent& extent = params.latent;
  tasks.for_each_tile(task, [&](const Tile& tile) {
    TileBuffer<A> buffers[4];
    const A* mean = load_tile(params.p, extent, tile, 0, buffers[0].values);
    const A* raw = load_tile(params.p, extent, tile, extent.channels, buffers[1].values);
    const A* eps = noise_tile(params.noise, extent, tile, buffers[2].values);
    A* z = stage_tile(params.z, extent, tile, 0, buffers[3].values);
    forward_values<form>(tile.size(), mean, raw, eps, static_cast<A>(params.floor),
                         static_cast<A>(params.temperature), z);
    store_tile(params.z, extent, tile, 0, z);
  });
}

template <StdForm form, typename A>
void backward_task(const GaussianSampleBwdParams& params, const Tasks& tasks, const Task& task) {
  const Extent& extent = params.latent;
  tasks.for_each_tile(task, [&](const Tile& tile) {
    TileBuffer<A> buffers[5];
    const A* raw = load_tile(params.p, extent, tile, extent.channels, buffers[0].values);
    const A* eps = noise_tile(params.noise, extent, tile, buffers[1].values);
    const A* grad_z = load_tile(params.grad_z, extent, tile, 0, buffers[2].values);
    A* mean_grad = stage_tile(params.grad_p, extent, tile, 0, buffers[3].values);
    A* raw_grad = stage_tile(params.grad_p, extent, tile, extent.channels, buffers[4].values);
    backward_values<form>(tile.size(), raw, eps, grad_z, static_cast<A>(params.floor),
                          static_cast<A>(params.temperature), mean_grad, raw_grad);
    store_tile(params.grad_p, extent, tile, 0, mean_grad);
    store_tile(params.grad_p, extent, tile, extent.channels, raw_grad);
  });
}

}  // namespace

// Tasks are numbered through: those of the latent, then those of the channels behind it.
int64_t count_gaussian_sample_tasks(const GaussianSampleCommon& params) {
  return latent_tasks(params).count() +
         residual_tasks(params.latent, params.residual_channels).count();
}

void launch_gaussian_sample_cpu(const GaussianSampleParams& params, int64_t begin, int64_t end) {
  const Tasks tasks = latent_tasks(params);
  with_variant(params.std, params.p.dtype, [&](auto form, auto zero) {
    tasks.for_each(begin, end, [&](const Task& task) {
      forward_task<decltype(form)::value, decltype(zero)>(params, tasks, task);
    });
  });
}

void launch_gaussian_sample_bwd_cpu(const GaussianSampleBwdParams& params, int64_t begin,
                                    int64_t end) {
  const Tasks tasks = latent_tasks(params);
  with_variant(params.std, params.p.dtype, [&](auto form, auto zero) {
    tasks.for_each(begin, end, [&](const Task& task) {
      backward_task<decltype(form)::value, decltype(zero)>(params, tasks, task);
    });
  });
  const Tasks residual = residual_tasks(params.latent, params.residual_channels);
  residual.for_each(begin - tasks.count(), end - tasks.count(), [&](const Task& task) {
    copy_residual_grad(residual, task, Input{}, params.grad_p, 2 * params.latent.channels);
  });
}

}  // namespace hvae
