#include "kernels/cuda.h"
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_patch.cuh"
#include "kernels/cuda_plan.h"
#include "kernels/cuda_residual.cuh"
#include "kernels/cuda_tasks.cuh"
#include "kernels/dispatch.h"
#include "kernels/gaussian_sample.h"

namespace hvae {

namespace {

template <bool kVector, typename S, typename P>
__device__ void forward_patch(const GaussianSampleParams& params, const P& patch) {
  using A = Arithmetic<S>;
  const Extent& extent = params.latent;
  const A floor = static_cast<A>(params.floor), temperature = static_cast<A>(params.temperature);
  A eps[P::kRows][P::kCols];
  patch_noise<kVector, S>(params.noise, extent, patch, eps);
#pragma unroll
  for (int row = 0; row < P::kRows; ++row) {
    if (row >= patch.rows) continue;
    A mean[P::kCols], raw[P::kCols], z[P::kCols];
    load_row<kVector, S>(params.p, extent, patch, row, 0, mean);
    load_row<kVector, S>(params.p, extent, patch, row, extent.channels, raw);
#pragma unroll
    for (int col = 0; col < P::kCols; ++col) {
      z[col] =
          params.std == StdForm::kLog
              ? sample<StdForm::kLog>(mean[col], raw[col], eps[row][col], floor, temperature)
              : sample<StdForm::kSoftplus>(mean[col], raw[col], eps[row][col], floor, temperature);
    }
    store_row<kVector, S>(params.z, extent, patch, row, 0, z);
  }
}

template <bool kVector, typename S, typename P>
__device__ void backward_patch(const GaussianSampleBwdParams& params, const P& patch) {
  using A = Arithmetic<S>;
  const Extent& extent = params.latent;
  const A floor = static_cast<A>(params.floor), temperature = static_cast<A>(params.temperature);
  A eps[P::kRows][P::kCols];
  patch_noise<kVector, S>(params.noise, extent, patch, eps);
#pragma unroll
  for (int row = 0; row < P::kRows; ++row) {
    if (row >= patch.rows) continue;
    A grad_z[P::kCols], raw[P::kCols], grad_raw[P::kCols];
    load_row<kVector, S>(params.grad_z, extent, patch, row, 0, grad_z);
    load_row<kVector, S>(params.p, extent, patch, row, extent.channels, raw);
#pragma unroll
    for (int col = 0; col < P::kCols; ++col) {
      const SampleGrad<A> grad =
          params.std == StdForm::kLog
              ? sample_grad<StdForm::kLog>(raw[col], eps[row][col], grad_z[col], floor, temperature)
              : sample_grad<StdForm::kSoftplus>(raw[col], eps[row][col], grad_z[col], floor,
                                                temperature);
      grad_raw[col] = grad.raw;
    }
    store_row<kVector, S>(params.grad_p, extent, patch, row, 0, grad_z);
    store_row<kVector, S>(params.grad_p, extent, patch, row, extent.channels, grad_raw);
  }
}

template <typename S, bool kVector>
__global__ void __launch_bounds__(kBlockThreads)
    forward_runs(GaussianSampleParams params, CudaPlan plan) {
  RunTask(params.latent, plan).for_each_patch<RunPatch<S>>([&](const RunPatch<S>& patch) {
    forward_patch<kVector, S>(params, patch);
  });
}

template <typename S, bool kVector>
__global__ void __launch_bounds__(kBlockThreads)
    forward_tiles(GaussianSampleParams params, CudaPlan plan) {
  const TilePatch patch = TileTask(plan).patch(params.latent);
  if (!patch.is_empty()) forward_patch<kVector, S>(params, patch);
}

// The blocks behind the latent's clear the channels that the draw does not depend on.
template <typename A>
__device__ bool did_clear(const GaussianSampleBwdParams& params, const CudaPlan& plan) {
  if (blockIdx.x < plan.blocks) return false;
  copy_residual_grad_block<A>(residual_of(params.latent, params.residual_channels), plan,
                              blockIdx.x - plan.blocks, Input{}, params.grad_p,
                              2 * params.latent.channels);
  return true;
}

template <typename S, bool kVector>
__global__ void __launch_bounds__(kBlockThreads)
    backward_runs(GaussianSampleBwdParams params, CudaPlan plan) {
  if (did_clear<Arithmetic<S>>(params, plan)) return;
  RunTask(params.latent, plan).for_each_patch<RunPatch<S>>([&](const RunPatch<S>& patch) {
    backward_patch<kVector, S>(params, patch);
  });
}

template <typename S, bool kVector>
__global__ void __launch_bounds__(kBlockThreads)
    backward_tiles(GaussianSampleBwdParams params, CudaPlan plan) {
  if (did_clear<Arithmetic<S>>(params, plan)) return;
  const TilePatch patch = TileTask(plan).patch(params.latent);
  if (!patch.is_empty()) backward_patch<kVector, S>(params, patch);
}

}  // namespace

int launch_gaussian_sample_cuda(const GaussianSampleParams& params, void* stream) {
  const CudaPlan plan = plan_cuda(params.latent, 1, 0, run_cols(params.p.dtype));
  const bool vector =
      is_vectorizable(params.latent, 1, params.p.dtype, params.p, params.noise.eps, params.z);
  return with_kernel_variant(params.p.dtype, vector, [&](auto zero, auto is_vector) {
    using S = decltype(zero);
    const auto kernel = params.latent.layout == Layout::kChannelsFirst
                            ? forward_runs<S, decltype(is_vector)::value>
                            : forward_tiles<S, decltype(is_vector)::value>;
    return launch_plan(kernel, plan, params.latent.batch, stream, params, plan);
  });
}

int launch_gaussian_sample_bwd_cuda(const GaussianSampleBwdParams& params, void* stream) {
  const CudaPlan plan =
      plan_cuda(params.latent, 1, params.residual_channels, run_cols(params.p.dtype));
  const bool vector = is_vectorizable(params.latent, 1, params.p.dtype, params.p, params.noise.eps,
                                      params.grad_z, params.grad_p);
  return with_kernel_variant(params.p.dtype, vector, [&](auto zero, auto is_vector) {
    using S = decltype(zero);
    const auto kernel = params.latent.layout == Layout::kChannelsFirst
                            ? backward_runs<S, decltype(is_vector)::value>
                            : backward_tiles<S, decltype(is_vector)::value>;
    return launch_plan(kernel, plan, params.latent.batch, stream, params, plan);
  });
}

}  // namespace hvae
