#include "kernels/gaussian_latent.h"

#include "kernels/cuda.h"
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_patch.cuh"
#include "kernels/cuda_plan.h"
#include "kernels/cuda_reduce.cuh"
#include "kernels/cuda_residual.cuh"
#include "kernels/cuda_tasks.cuh"
#include "kernels/dispatch.h"

namespace hvae {

namespace {

// The blocks behind the latent's do the residual. True if this is one of them.
__device__ bool did_residual(const GaussianLatentParams& params, const CudaPlan& plan) {
  if (blockIdx.x < plan.blocks) return false;
  add_residual_block(residual_of(params.latent, params.residual_channels), plan,
                     blockIdx.x - plan.blocks, params.x, params.p, 2 * params.latent.channels,
                     params.y);
  return true;
}

template <typename A>
__device__ bool did_residual_grad(const GaussianLatentBwdParams& params, const CudaPlan& plan) {
  if (blockIdx.x < plan.blocks) return false;
  copy_residual_grad_block<A>(residual_of(params.latent, params.residual_channels), plan,
                              blockIdx.x - plan.blocks, params.grad_y, params.grad_p,
                              2 * params.latent.channels);
  return true;
}

// One row of the posterior and the prior of a patch.
template <typename A, int cols>
struct LatentRow {
  A mean_q[cols], raw_q[cols], mean_p[cols], raw_p[cols];
};

template <bool kVector, typename S, typename P>
__device__ LatentRow<Arithmetic<S>, P::kCols> load_latent_row(const GaussianLatentCommon& params,
                                                              const P& patch, int row) {
  const Extent& extent = params.latent;
  LatentRow<Arithmetic<S>, P::kCols> in;
  load_row<kVector, S>(params.q, extent, patch, row, 0, in.mean_q);
  load_row<kVector, S>(params.q, extent, patch, row, extent.channels, in.raw_q);
  load_row<kVector, S>(params.p, extent, patch, row, 0, in.mean_p);
  load_row<kVector, S>(params.p, extent, patch, row, extent.channels, in.raw_p);
  return in;
}

template <StdForm form, typename A, int cols>
__device__ void forward_row(const LatentRow<A, cols>& in, const A* eps, A floor, A* z, A* kl) {
#pragma unroll
  for (int col = 0; col < cols; ++col) {
    const Latent<A> value =
        latent<form>(in.mean_q[col], in.raw_q[col], in.mean_p[col], in.raw_p[col], eps[col], floor);
    z[col] = value.z;
    kl[col] = value.kl;
  }
}

// Writes z and, unless it is summed, KL of a patch; adds its KL to the sum of each column.
template <bool kVector, typename S, typename P>
__device__ void forward_patch(const GaussianLatentParams& params, const P& patch,
                              Arithmetic<S> (&sums)[P::kCols]) {
  using A = Arithmetic<S>;
  A eps[P::kRows][P::kCols];
  patch_noise<kVector, S>(params.noise, params.latent, patch, eps);
#pragma unroll
  for (int row = 0; row < P::kRows; ++row) {
    if (row >= patch.rows) continue;
    const auto in = load_latent_row<kVector, S>(params, patch, row);
    const A floor = static_cast<A>(params.floor);
    A z[P::kCols], kl[P::kCols];
    if (params.std == StdForm::kLog) {
      forward_row<StdForm::kLog>(in, eps[row], floor, z, kl);
    } else {
      forward_row<StdForm::kSoftplus>(in, eps[row], floor, z, kl);
    }
    store_row<kVector, S>(params.z, params.latent, patch, row, 0, z);
    if (params.groups == 0) {
      store_row<false, A>(params.kl, params.latent, patch, row, 0, kl);
    }
#pragma unroll
    for (int col = 0; col < P::kCols; ++col) sums[col] += patch.has(row, col) ? kl[col] : A{0};
  }
}

// `out` is kl itself, or the partials: [sample][sum][chunk].
template <typename S, bool kVector>
__global__ void __launch_bounds__(kBlockThreads)
    forward_runs(GaussianLatentParams params, CudaPlan plan, Arithmetic<S>* out) {
  using A = Arithmetic<S>;
  using P = RunPatch<S>;
  if (did_residual(params, plan)) return;
  const RunTask task(params.latent, plan);
  A sums[P::kCols] = {};
  task.for_each_patch<P>([&](const P& patch) { forward_patch<kVector, S>(params, patch, sums); });
  if (params.groups == 0) return;
  A sum = sums[0];
#pragma unroll
  for (int col = 1; col < P::kCols; ++col) sum += sums[col];
  sum = sum_row(sum);
  if (threadIdx.x == 0 && task.sample < params.latent.batch) {
    out[(task.sample * plan.groups + task.group) * plan.chunks + task.chunk] = sum;
  }
}

template <typename S, bool kVector>
__global__ void __launch_bounds__(kBlockThreads)
    forward_tiles(GaussianLatentParams params, CudaPlan plan, Arithmetic<S>* out) {
  using A = Arithmetic<S>;
  if (did_residual(params, plan)) return;
  const TileTask task(plan);
  const TilePatch patch = task.patch(params.latent);
  A sums[TilePatch::kCols] = {};
  if (!patch.is_empty()) forward_patch<kVector, S>(params, patch, sums);
  if (params.groups == 0) return;

  __shared__ A columns[kBlockThreads * TilePatch::kCols];
  sum_columns(sums, columns);
  // Whole groups where the tile holds all channels, else single channels.
  const int64_t width = params.latent.channels / plan.sums;
  const int64_t last = plan.channel_tiles == 1 ? plan.sums : params.latent.channels - task.channel;
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  const int64_t tile_sums = last < 4 * blockDim.x ? last : 4 * blockDim.x;
  for (int64_t i = thread; i < tile_sums; i += blockDim.x * blockDim.y) {
    A sum = 0;
    for (int64_t j = 0; j < width; ++j) sum += columns[i * width + j];
    out[(task.sample * plan.sums + task.channel / width + i) * plan.chunks + task.chunk] = sum;
  }
}

// The gradient of each element's KL, from that of the sum it went into.
template <typename A, typename P>
__device__ void load_grad_kl(const GaussianLatentBwdParams& params, const P& patch, int row,
                             int64_t group, A (&grad)[P::kCols]) {
  const A* data = static_cast<const A*>(params.grad_kl.data);
  if (data != nullptr && params.groups == 0) {
    load_row<false, A>(params.grad_kl, params.latent, patch, row, 0, grad);
    return;
  }
  const int width =
      params.groups > 0 ? static_cast<int>(params.latent.channels / params.groups) : 1;
#pragma unroll
  for (int col = 0; col < P::kCols; ++col) {
    const int64_t own = P::kRows == 1 ? group : (static_cast<int>(patch.channel) + col) / width;
    grad[col] =
        data != nullptr && patch.has(row, col) ? data[patch.sample * params.groups + own] : A{0};
  }
}

template <StdForm form, typename A, int cols>
__device__ LatentRow<A, cols> backward_row(const LatentRow<A, cols>& in, const A* eps,
                                           const A* grad_z, const A* grad_kl, A floor) {
  LatentRow<A, cols> out;
#pragma unroll
  for (int col = 0; col < cols; ++col) {
    const LatentGrad<A> grad =
        latent_grad<form>(in.mean_q[col], in.raw_q[col], in.mean_p[col], in.raw_p[col], eps[col],
                          grad_z[col], grad_kl[col], floor);
    out.mean_q[col] = grad.mean_q;
    out.raw_q[col] = grad.raw_q;
    out.mean_p[col] = grad.mean_p;
    out.raw_p[col] = grad.raw_p;
  }
  return out;
}

// `group` is the patch's in channels-first layout.
template <bool kVector, typename S, typename P>
__device__ void backward_patch(const GaussianLatentBwdParams& params, const P& patch,
                               int64_t group) {
  using A = Arithmetic<S>;
  const Extent& extent = params.latent;
  A eps[P::kRows][P::kCols];
  patch_noise<kVector, S>(params.noise, extent, patch, eps);
#pragma unroll
  for (int row = 0; row < P::kRows; ++row) {
    if (row >= patch.rows) continue;
    const auto in = load_latent_row<kVector, S>(params, patch, row);
    A grad_z[P::kCols] = {}, grad_kl[P::kCols];
    if (params.grad_z.data != nullptr) {
      load_row<kVector, S>(params.grad_z, extent, patch, row, 0, grad_z);
    }
    load_grad_kl(params, patch, row, group, grad_kl);
    const A floor = static_cast<A>(params.floor);
    const auto out = params.std == StdForm::kLog
                         ? backward_row<StdForm::kLog>(in, eps[row], grad_z, grad_kl, floor)
                         : backward_row<StdForm::kSoftplus>(in, eps[row], grad_z, grad_kl, floor);
    store_row<kVector, S>(params.grad_q, extent, patch, row, 0, out.mean_q);
    store_row<kVector, S>(params.grad_q, extent, patch, row, extent.channels, out.raw_q);
    store_row<kVector, S>(params.grad_p, extent, patch, row, 0, out.mean_p);
    store_row<kVector, S>(params.grad_p, extent, patch, row, extent.channels, out.raw_p);
  }
}

template <typename S, bool kVector>
__global__ void __launch_bounds__(kBlockThreads)
    backward_runs(GaussianLatentBwdParams params, CudaPlan plan) {
  if (did_residual_grad<Arithmetic<S>>(params, plan)) return;
  const RunTask task(params.latent, plan);
  task.for_each_patch<RunPatch<S>>(
      [&](const RunPatch<S>& patch) { backward_patch<kVector, S>(params, patch, task.group); });
}

template <typename S, bool kVector>
__global__ void __launch_bounds__(kBlockThreads)
    backward_tiles(GaussianLatentBwdParams params, CudaPlan plan) {
  if (did_residual_grad<Arithmetic<S>>(params, plan)) return;
  const TilePatch patch = TileTask(plan).patch(params.latent);
  if (!patch.is_empty()) backward_patch<kVector, S>(params, patch, 0);
}

CudaPlan plan_of(const GaussianLatentCommon& params) {
  return plan_cuda(params.latent, params.groups, params.residual_channels,
                   run_cols(params.q.dtype));
}

}  // namespace

int64_t count_gaussian_latent_partials_cuda(const GaussianLatentCommon& params) {
  const int64_t count = partials_per_group(plan_of(params));
  return params.groups == 0 || count == 1 ? 0 : params.latent.batch * params.groups * count;
}

int launch_gaussian_latent_cuda(const GaussianLatentParams& params, void* stream) {
  CudaPlan plan = plan_of(params);
  if (params.y.data == nullptr) plan.residual_blocks_per_sample = 0;
  const int64_t partials = partials_per_group(plan);
  void* out = partials == 1 ? params.kl.data : params.partials;
  const bool vector = is_vectorizable(params.latent, plan.groups, params.q.dtype, params.q,
                                      params.p, params.noise.eps, params.z);
  const int error = with_kernel_variant(params.q.dtype, vector, [&](auto zero, auto is_vector) {
    using S = decltype(zero);
    const auto kernel = params.latent.layout == Layout::kChannelsFirst
                            ? forward_runs<S, decltype(is_vector)::value>
                            : forward_tiles<S, decltype(is_vector)::value>;
    return launch_plan(kernel, plan, params.latent.batch, stream, params, plan,
                       static_cast<Arithmetic<S>*>(out));
  });
  if (error != 0 || params.groups == 0 || partials == 1) return error;
  return with_arithmetic(params.kl.dtype, [&](auto zero) {
    return launch_add_partials<decltype(zero)>(
        params.partials, partials, params.latent.batch * params.groups, params.kl.data, stream);
  });
}

int launch_gaussian_latent_bwd_cuda(const GaussianLatentBwdParams& params, void* stream) {
  const CudaPlan plan = plan_of(params);
  const bool vector =
      is_vectorizable(params.latent, plan.groups, params.q.dtype, params.q, params.p,
                      params.noise.eps, params.grad_z, params.grad_q, params.grad_p);
  return with_kernel_variant(params.q.dtype, vector, [&](auto zero, auto is_vector) {
    using S = decltype(zero);
    const auto kernel = params.latent.layout == Layout::kChannelsFirst
                            ? backward_runs<S, decltype(is_vector)::value>
                            : backward_tiles<S, decltype(is_vector)::value>;
    return launch_plan(kernel, plan, params.latent.batch, stream, params, plan);
  });
}

}  // namespace hvae
