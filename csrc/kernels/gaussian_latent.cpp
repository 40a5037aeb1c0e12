#include "kernels/gaussian_latent.h"

#include <algorithm>

#include "kernels/dispatch.h"
#include "kernels/residual.h"
#include "kernels/simd.h"
#include "kernels/std_values.h"
#include "kernels/tile.h"

namespace hvae {

namespace {

// The arithmetic, on dense arrays. Everything below it only moves data to and fro.

template <typename A>
HVAE_CLONES void forward_log(int count, const A* __restrict mean_q, const A* __restrict raw_q,
                             const A* __restrict mean_p, const A* __restrict raw_p,
                             const A* __restrict eps, A* __restrict z, A* __restrict kl) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const Latent<A> value =
        latent<StdForm::kLog>(mean_q[i], raw_q[i], mean_p[i], raw_p[i], eps[i], A{0});
    z[i] = value.z;
    kl[i] = value.kl;
  }
}

template <typename A>
HVAE_CLONES void forward_of_stds(int count, const A* __restrict mean_q, const A* __restrict std_q,
                                 const A* __restrict mean_p, const A* __restrict std_p,
                                 const A* __restrict eps, A* __restrict z, A* __restrict kl) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const Latent<A> value = latent_of_stds(mean_q[i], std_q[i], mean_p[i], std_p[i], eps[i]);
    z[i] = value.z;
    kl[i] = value.kl;
  }
}

template <typename A>
HVAE_CLONES void backward_log(int count, const A* __restrict mean_q, const A* __restrict raw_q,
                              const A* __restrict mean_p, const A* __restrict raw_p,
                              const A* __restrict eps, const A* __restrict grad_z,
                              const A* __restrict grad_kl, A* __restrict grad_mean_q,
                              A* __restrict grad_raw_q, A* __restrict grad_mean_p,
                              A* __restrict grad_raw_p) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const LatentGrad<A> grad = latent_grad<StdForm::kLog>(mean_q[i], raw_q[i], mean_p[i], raw_p[i],
                                                          eps[i], grad_z[i], grad_kl[i], A{0});
    grad_mean_q[i] = grad.mean_q;
    grad_raw_q[i] = grad.raw_q;
    grad_mean_p[i] = grad.mean_p;
    grad_raw_p[i] = grad.raw_p;
  }
}

template <typename A>
HVAE_CLONES void backward_of_stds(int count, const A* __restrict mean_q, const A* __restrict std_q,
                                  const A* __restrict slope_q, const A* __restrict mean_p,
                                  const A* __restrict std_p, const A* __restrict slope_p,
                                  const A* __restrict eps, const A* __restrict grad_z,
                                  const A* __restrict grad_kl, A* __restrict grad_mean_q,
                                  A* __restrict grad_raw_q, A* __restrict grad_mean_p,
                                  A* __restrict grad_raw_p) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const LatentGrad<A> grad =
        latent_grad_of_stds(mean_q[i], {std_q[i], slope_q[i]}, mean_p[i], {std_p[i], slope_p[i]},
                            eps[i], grad_z[i], grad_kl[i]);
    grad_mean_q[i] = grad.mean_q;
    grad_raw_q[i] = grad.raw_q;
    grad_mean_p[i] = grad.mean_p;
    grad_raw_p[i] = grad.raw_p;
  }
}

template <typename A>
HVAE_CLONES A sum_values(int count, const A* __restrict values) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < count; ++i) sum += values[i];
  return sum;
}

template <typename A>
HVAE_CLONES void sum_columns(int rows, int length, const A* __restrict values, A* __restrict sums) {
  for (int i = 0; i < length; ++i) sums[i] = 0;
  for (int row = 0; row < rows; ++row) {
#pragma omp simd
    for (int i = 0; i < length; ++i) sums[i] += values[row * length + i];
  }
}

// The posterior, the prior and the noise of one tile.
template <typename A>
struct LatentTile {
  LatentTile(const GaussianLatentCommon& params, const Tile& tile) {
    const Extent& extent = params.latent;
    mean_q = load_tile(params.q, extent, tile, 0, buffers[0].values);
    raw_q = load_tile(params.q, extent, tile, extent.channels, buffers[1].values);
    mean_p = load_tile(params.p, extent, tile, 0, buffers[2].values);
    raw_p = load_tile(params.p, extent, tile, extent.channels, buffers[3].values);
    eps = noise_tile(params.noise, extent, tile, buffers[4].values);
  }
  LatentTile(const LatentTile&) = delete;  // the pointers may point into the buffers

  const A *mean_q, *raw_q, *mean_p, *raw_p, *eps;
  TileBuffer<A> buffers[5];
};

template <StdForm form, typename A>
void forward_values(int count, const LatentTile<A>& in, A floor, A* z, A* kl) {
  if constexpr (form == StdForm::kLog) {
    forward_log(count, in.mean_q, in.raw_q, in.mean_p, in.raw_p, in.eps, z, kl);
  } else {
    TileBuffer<A> std_q, std_p;
    softplus_values(count, in.raw_q, floor, std_q.values);
    softplus_values(count, in.raw_p, floor, std_p.values);
    forward_of_stds(count, in.mean_q, std_q.values, in.mean_p, std_p.values, in.eps, z, kl);
  }
}

template <StdForm form, typename A>
void backward_values(int count, const LatentTile<A>& in, const A* grad_z, const A* grad_kl, A floor,
                     A* mean_q, A* raw_q, A* mean_p, A* raw_p) {
  if constexpr (form == StdForm::kLog) {
    backward_log(count, in.mean_q, in.raw_q, in.mean_p, in.raw_p, in.eps, grad_z, grad_kl, mean_q,
                 raw_q, mean_p, raw_p);
  } else {
    TileBuffer<A> std_q, slope_q, std_p, slope_p;
    softplus_values(count, in.raw_q, floor, std_q.values, slope_q.values);
    softplus_values(count, in.raw_p, floor, std_p.values, slope_p.values);
    backward_of_stds(count, in.mean_q, std_q.values, slope_q.values, in.mean_p, std_p.values,
                     slope_p.values, in.eps, grad_z, grad_kl, mean_q, raw_q, mean_p, raw_p);
  }
}

// The sums of the chunks, [sample][group][chunk].
struct Partials {
  const Tasks& tasks;
  double* values;

  double& of(const Task& task, int64_t group) const {
    return values[(task.sample * tasks.groups() + group) * tasks.chunks() + task.chunk];
  }

  void clear(const Task& task) const {
    const auto [first, last] = tasks.groups_of(task);
    for (int64_t group = first; group < last; ++group) of(task, group) = 0;
  }

  template <typename A>
  void add(const Task& task, const Tile& tile, const A* kl) const {
    if (tile.is_run) {
      of(task, task.group) += sum_values(tile.size(), kl);
      return;
    }
    TileBuffer<A> sums;
    sum_columns(tile.rows, tile.row_length, kl, sums.values);
    for (int i = 0; i < tile.row_length; ++i) {
      of(task, (tile.channel + i) / tasks.channels_per_group()) += sums.values[i];
    }
  }
};

template <StdForm form, typename A>
void forward_task(const GaussianLatentParams& params, const Tasks& tasks, const Task& task) {
  const bool summed = params.groups > 0;
  const Partials partials{tasks, static_cast<double*>(params.partials)};
  if (summed) partials.clear(task);
  tasks.for_each_tile(task, [&](const Tile& tile) {
    const LatentTile<A> in(params, tile);
    TileBuffer<A> z_buffer, kl_buffer;
    A* z = stage_tile(params.z, params.latent, tile, 0, z_buffer.values);
    A* kl =
        summed ? kl_buffer.values : stage_tile(params.kl, params.latent, tile, 0, kl_buffer.values);
    forward_values<form>(tile.size(), in, static_cast<A>(params.floor), z, kl);
    store_tile(params.z, params.latent, tile, 0, z);
    if (summed) {
      partials.add(task, tile, kl);
    } else {
      store_tile(params.kl, params.latent, tile, 0, kl);
    }
  });
}

// The gradient of each element's KL, from that of the sum it went into.
template <typename A>
const A* grad_kl_of(const GaussianLatentBwdParams& params, const Tasks& tasks, const Task& task,
                    const Tile& tile, A* scratch) {
  if (params.grad_kl.data == nullptr) {
    std::fill_n(scratch, tile.size(), A{0});
    return scratch;
  }
  if (params.groups == 0) return load_tile(params.grad_kl, params.latent, tile, 0, scratch);
  const A* of_group = static_cast<const A*>(params.grad_kl.data) + task.sample * params.groups;
  if (tile.is_run) {
    std::fill_n(scratch, tile.size(), of_group[task.group]);
    return scratch;
  }
  for (int i = 0; i < tile.row_length; ++i) {
    scratch[i] = of_group[(tile.channel + i) / tasks.channels_per_group()];
  }
  for (int row = 1; row < tile.rows; ++row) {
    std::copy_n(scratch, tile.row_length, scratch + row * tile.row_length);
  }
  return scratch;
}

template <typename A>
const A* grad_z_of(const GaussianLatentBwdParams& params, const Tile& tile, A* scratch) {
  if (params.grad_z.data != nullptr) {
    return load_tile(params.grad_z, params.latent, tile, 0, scratch);
  }
  std::fill_n(scratch, tile.size(), A{0});
  return scratch;
}

template <StdForm form, typename A>
void backward_task(const GaussianLatentBwdParams& params, const Tasks& tasks, const Task& task) {
  const Extent& extent = params.latent;
  const int64_t channels = extent.channels;
  tasks.for_each_tile(task, [&](const Tile& tile) {
    const LatentTile<A> in(params, tile);
    TileBuffer<A> grad_z_buffer, grad_kl_buffer, buffers[4];
    const A* grad_z = grad_z_of(params, tile, grad_z_buffer.values);
    const A* grad_kl = grad_kl_of(params, tasks, task, tile, grad_kl_buffer.values);
    A* mean_q = stage_tile(params.grad_q, extent, tile, 0, buffers[0].values);
    A* raw_q = stage_tile(params.grad_q, extent, tile, channels, buffers[1].values);
    A* mean_p = stage_tile(params.grad_p, extent, tile, 0, buffers[2].values);
    A* raw_p = stage_tile(params.grad_p, extent, tile, channels, buffers[3].values);
    backward_values<form>(tile.size(), in, grad_z, grad_kl, static_cast<A>(params.floor), mean_q,
                          raw_q, mean_p, raw_p);
    store_tile(params.grad_q, extent, tile, 0, mean_q);
    store_tile(params.grad_q, extent, tile, channels, raw_q);
    store_tile(params.grad_p, extent, tile, 0, mean_p);
    store_tile(params.grad_p, extent, tile, channels, raw_p);
  });
}

Tasks latent_tasks(const GaussianLatentCommon& params) { return {params.latent, params.groups}; }

}  // namespace

// Tasks are numbered through: those of the latent, then those of the residual.
int64_t count_gaussian_latent_tasks(const GaussianLatentCommon& params) {
  return latent_tasks(params).count() +
         residual_tasks(params.latent, params.residual_channels).count();
}

int64_t count_gaussian_latent_partials_cpu(const GaussianLatentCommon& params) {
  return params.latent.batch * params.groups * latent_tasks(params).chunks();
}

void launch_gaussian_latent_cpu(const GaussianLatentParams& params, int64_t begin, int64_t end) {
  const Tasks tasks = latent_tasks(params);
  with_variant(params.std, params.q.dtype, [&](auto form, auto zero) {
    tasks.for_each(begin, end, [&](const Task& task) {
      forward_task<decltype(form)::value, decltype(zero)>(params, tasks, task);
    });
  });
  if (params.y.data == nullptr) return;
  const Tasks residual = residual_tasks(params.latent, params.residual_channels);
  residual.for_each(begin - tasks.count(), end - tasks.count(), [&](const Task& task) {
    add_residual(residual, task, params.x, params.p, 2 * params.latent.channels, params.y);
  });
}

void launch_gaussian_latent_bwd_cpu(const GaussianLatentBwdParams& params, int64_t begin,
                                    int64_t end) {
  const Tasks tasks = latent_tasks(params);
  with_variant(params.std, params.q.dtype, [&](auto form, auto zero) {
    tasks.for_each(begin, end, [&](const Task& task) {
      backward_task<decltype(form)::value, decltype(zero)>(params, tasks, task);
    });
  });
  const Tasks residual = residual_tasks(params.latent, params.residual_channels);
  residual.for_each(begin - tasks.count(), end - tasks.count(), [&](const Task& task) {
    copy_residual_grad(residual, task, params.grad_y, params.grad_p, 2 * params.latent.channels);
  });
}

void finish_gaussian_latent_cpu(const GaussianLatentParams& params) {
  const double* partials = static_cast<const double*>(params.partials);
  const int64_t chunks = latent_tasks(params).chunks();
  with_arithmetic(params.kl.dtype, [&](auto zero) {
    using A = decltype(zero);
    for (int64_t i = 0; i < params.latent.batch * params.groups; ++i) {
      const double sum = sum_in_order(partials + i * chunks, chunks);
      static_cast<A*>(params.kl.data)[i] = static_cast<A>(sum);
    }
  });
}

}  // namespace hvae
