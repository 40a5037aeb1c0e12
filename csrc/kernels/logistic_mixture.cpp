#include "kernels/logistic_mixture.h"

#include <algorithm>
#include <vector>

#include "kernels/dispatch.h"
#include "kernels/mixture_channels.h"
#include "kernels/pixel_tile.h"
#include "kernels/simd.h"
#include "math/logistic.h"
#include "math/reduce.h"

namespace hvae {

namespace {

// What the levels of a tile become: targets in [-1, 1], and which of them are edges.
template <typename A>
struct Targets {
  alignas(64) Plane<A> value[3];
  alignas(64) Plane<int32_t> first[3], last[3];
};

// One component's bins, all colours: colour j of pixel i at [j][i].
template <typename A>
struct Bins {
  alignas(64) Plane<A> coefficient[3];  // after tanh
  alignas(64) Plane<A> log_scale[3], inverse_scale[3];
  alignas(64) Plane<A> a[3], b[3], width[3];
  alignas(64) Plane<A> decay_a[3], decay_b[3], decay_width[3];
};

// The arithmetic, on dense arrays; every loop runs over `count` values that lie one after another.

template <typename A>
HVAE_CLONES void exp_minus_abs_values(int count, const A* __restrict x, A* __restrict y) {
#pragma omp simd
  for (int i = 0; i < count; ++i) y[i] = exp_minus_abs(x[i]);
}

template <typename A>
HVAE_CLONES void tanh_values(int count, const A* __restrict x, A* __restrict y) {
#pragma omp simd
  for (int i = 0; i < count; ++i) y[i] = tanh_of(x[i]);
}

template <typename A>
HVAE_CLONES void inverse_scales(int count, const A* __restrict raw, A floor,
                                A* __restrict log_scale, A* __restrict inverse) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    log_scale[i] = raw[i] < floor ? floor : raw[i];
    inverse[i] = exp(-log_scale[i]);
  }
}

template <typename A>
HVAE_CLONES void differences(int count, const A* __restrict x, const A* __restrict y,
                             A* __restrict difference) {
#pragma omp simd
  for (int i = 0; i < count; ++i) difference[i] = x[i] - y[i];
}

template <typename A>
HVAE_CLONES void subtract_products(int count, const A* __restrict x, const A* __restrict y,
                                   A* __restrict from) {
#pragma omp simd
  for (int i = 0; i < count; ++i) from[i] -= x[i] * y[i];
}

// a, b and D, where a arrives as t - mu.
template <typename A>
HVAE_CLONES void bins_of(int count, const A* __restrict inverse, A delta, A* __restrict a,
                         A* __restrict b, A* __restrict width) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const A centred = a[i];
    a[i] = (centred + delta) * inverse[i];
    b[i] = (centred - delta) * inverse[i];
    width[i] = 2 * delta * inverse[i];
  }
}

// Adds a colour's log-mass to linear + ln(n / d).
template <typename A>
HVAE_CLONES void add_log_mass(int count, const A* __restrict a, const A* __restrict b,
                              const A* __restrict width, const A* __restrict log_scale,
                              const A* __restrict decay_a, const A* __restrict decay_b,
                              const A* __restrict decay_width, const int32_t* __restrict first,
                              const int32_t* __restrict last, A log_two_delta, A* __restrict linear,
                              A* __restrict n, A* __restrict d) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const LogMass<A> mass =
        log_mass(a[i], b[i], width[i], log_scale[i], log_two_delta,
                 Decays<A>{decay_a[i], decay_b[i], decay_width[i]}, {first[i] != 0, last[i] != 0});
    linear[i] += mass.linear;
    n[i] *= mass.n;
    d[i] *= mass.d;
  }
}

template <typename A>
HVAE_CLONES void finish_log_joint(int count, const A* __restrict linear, const A* __restrict n,
                                  const A* __restrict d, A* __restrict log_joint) {
#pragma omp simd
  for (int i = 0; i < count; ++i) log_joint[i] = linear[i] + log_normal_range(n[i] / d[i]);
}

template <typename A>
HVAE_CLONES void slopes_of(int count, const A* __restrict a, const A* __restrict b,
                           const A* __restrict width, const A* __restrict inverse,
                           const A* __restrict decay_a, const A* __restrict decay_b,
                           const A* __restrict decay_width, const int32_t* __restrict first,
                           const int32_t* __restrict last, const A* __restrict raw, A floor,
                           A* __restrict mean, A* __restrict log_scale) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const MassSlopes<A> slopes =
        mass_slopes(a[i], b[i], width[i], Decays<A>{decay_a[i], decay_b[i], decay_width[i]},
                    {first[i] != 0, last[i] != 0});
    mean[i] = slopes.mean * inverse[i];
    log_scale[i] = raw[i] < floor ? 0 : slopes.log_scale;
  }
}

// Slope of -ln P in the raw coefficient, from that in the mean which it shifts.
template <typename A>
HVAE_CLONES void coefficient_slopes(int count, const A* __restrict mean_slope,
                                    const A* __restrict target, const A* __restrict coefficient,
                                    A* __restrict slope) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    slope[i] = mean_slope[i] * target[i] * (1 - coefficient[i] * coefficient[i]);
  }
}

template <typename A>
HVAE_CLONES void max_values(int count, const A* __restrict x, A* __restrict most) {
#pragma omp simd
  for (int i = 0; i < count; ++i) most[i] = x[i] > most[i] ? x[i] : most[i];
}

// x becomes e^(x - most), and is added to the sum.
template <typename A>
HVAE_CLONES void add_exp_values(int count, const A* __restrict most, A* __restrict x,
                                A* __restrict sum) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    x[i] = exp(x[i] - most[i]);
    sum[i] += x[i];
  }
}

// nll: ln of the sum over the logits less that of the sum over the joint.
template <typename A>
HVAE_CLONES void nll_values(int count, const A* __restrict joint_most,
                            const A* __restrict joint_sum, const A* __restrict logit_most,
                            const A* __restrict logit_sum, A* __restrict nll) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    nll[i] = (logit_most[i] - joint_most[i]) + log_normal_range(logit_sum[i] / joint_sum[i]);
  }
}

template <typename A>
HVAE_CLONES void scale_values(int count, const A* __restrict by, A* __restrict x) {
#pragma omp simd
  for (int i = 0; i < count; ++i) x[i] *= by[i];
}

// Turns terms into weights times the incoming gradient: of the components given the levels in
// `joint`, and in `logit` the gradient of the logits.
template <typename A>
HVAE_CLONES void weights_of(int count, const A* __restrict joint_sum, const A* __restrict logit_sum,
                            const A* __restrict grad, A* __restrict joint, A* __restrict logit) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    joint[i] *= grad[i] / joint_sum[i];
    logit[i] = logit[i] * (grad[i] / logit_sum[i]) - joint[i];
  }
}

// Calls use(value) with a value of the type that levels are stored in.
template <typename Use>
void with_levels(int32_t bytes, Use use) {
  if (bytes == 1) return use(uint8_t{});
  if (bytes == 2) return use(int16_t{});
  return use(int32_t{});
}

template <typename A>
void load_targets(const LogisticMixtureNllParams& params, const PixelRun& tile,
                  Targets<A>& targets) {
  const int64_t last = (int64_t{1} << params.bits) - 1;
  const bool first_layout = params.extent.layout == Layout::kChannelsFirst;
  const int64_t step = first_layout ? 1 : params.x.pixel_stride;
  with_levels(params.x.bytes, [&](auto tag) {
    using S = decltype(tag);
    for (int64_t j = 0; j < params.colours; ++j) {
      const S* source = static_cast<const S*>(params.x.data) + tile.sample * params.x.batch_stride +
                        tile.first * step + (first_layout ? j * params.extent.pixels : j);
      for (int i = 0; i < tile.count; ++i) {
        const int64_t level = source[i * step];
        targets.value[j][i] = target_of(static_cast<A>(level), static_cast<A>(last));
        targets.first[j][i] = level == 0;
        targets.last[j][i] = level == last;
      }
    }
  });
}

// What a thread needs to work on one tile after the other.
template <typename A>
struct Workspace {
  Workspace(int64_t channels, int64_t mixtures)
      : params(channels * kSlabStride), grad(channels * kSlabStride), joint(mixtures * kPixels) {}

  std::vector<A> params, grad, joint;
  Targets<A> targets = {};
  Bins<A> bins = {};
  alignas(64) Plane<A> linear, n, d;
  alignas(64) Plane<A> joint_most, joint_sum, logit_most, logit_sum;
};

template <int kColours, typename A>
void component(const LogisticMixtureNllParams& params, Workspace<A>& work, int offset, int64_t m) {
  constexpr int kAll = kColours * kPixels;
  const MixtureChannels<kColours, int64_t> slots{params.mixtures};
  const A last = static_cast<A>((int64_t{1} << params.bits) - 1), delta = 1 / last;
  const A floor = static_cast<A>(params.log_scale_floor), log_two_delta = log(2 * delta);
  const A* in = work.params.data() + offset;
  Bins<A>& bins = work.bins;
  const Targets<A>& targets = work.targets;

  for (int j = 0; j < kColours; ++j) {
    inverse_scales(kPixels, in + slots.log_scale(j, m) * kSlabStride, floor, bins.log_scale[j],
                   bins.inverse_scale[j]);
    if (kColours == 3) {
      tanh_values(kPixels, in + slots.coefficient(j, m) * kSlabStride, bins.coefficient[j]);
    }
  }
  for (int j = 0; j < kColours; ++j) {
    differences(kPixels, targets.value[j], in + slots.mean(j, m) * kSlabStride, bins.a[j]);
  }
  if constexpr (kColours == 3) {
    for (const Coupling& c : kCouplings) {
      subtract_products(kPixels, bins.coefficient[c.slot], targets.value[c.source],
                        bins.a[c.shifted]);
    }
  }
  bins_of(kAll, bins.inverse_scale[0], delta, bins.a[0], bins.b[0], bins.width[0]);
  exp_minus_abs_values(kAll, bins.a[0], bins.decay_a[0]);
  exp_minus_abs_values(kAll, bins.b[0], bins.decay_b[0]);
  exp_minus_abs_values(kAll, bins.width[0], bins.decay_width[0]);

  std::copy_n(in + m * kSlabStride, kPixels, work.linear);
  std::fill_n(work.n, kPixels, A{1});
  std::fill_n(work.d, kPixels, A{1});
  for (int j = 0; j < kColours; ++j) {
    add_log_mass(kPixels, bins.a[j], bins.b[j], bins.width[j], bins.log_scale[j], bins.decay_a[j],
                 bins.decay_b[j], bins.decay_width[j], targets.first[j], targets.last[j],
                 log_two_delta, work.linear, work.n, work.d);
  }
  finish_log_joint(kPixels, work.linear, work.n, work.d, work.joint.data() + m * kPixels);

  if (params.grad.data == nullptr) return;
  A* out = work.grad.data() + offset;
  for (int j = 0; j < kColours; ++j) {
    slopes_of(kPixels, bins.a[j], bins.b[j], bins.width[j], bins.inverse_scale[j], bins.decay_a[j],
              bins.decay_b[j], bins.decay_width[j], targets.first[j], targets.last[j],
              in + slots.log_scale(j, m) * kSlabStride, floor, out + slots.mean(j, m) * kSlabStride,
              out + slots.log_scale(j, m) * kSlabStride);
  }
  if constexpr (kColours == 3) {
    for (const Coupling& c : kCouplings) {
      coefficient_slopes(kPixels, out + slots.mean(c.shifted, m) * kSlabStride,
                         targets.value[c.source], bins.coefficient[c.slot],
                         out + slots.coefficient(c.slot, m) * kSlabStride);
    }
  }
}

// The nll of the tile that begins at `offset` in the slab, and where wanted its gradients in
// work.grad.
template <int kColours, typename A>
void tile_nll(const LogisticMixtureNllParams& params, Workspace<A>& work, int offset,
              const A* grad_nll, A* nll) {
  const int64_t mixtures = params.mixtures;
  for (int64_t m = 0; m < mixtures; ++m) component<kColours>(params, work, offset, m);
  A* joint = work.joint.data();
  A* logits = work.params.data() + offset;
  std::copy_n(joint, kPixels, work.joint_most);
  std::copy_n(logits, kPixels, work.logit_most);
  for (int64_t m = 1; m < mixtures; ++m) {
    max_values(kPixels, joint + m * kPixels, work.joint_most);
    max_values(kPixels, logits + m * kSlabStride, work.logit_most);
  }
  std::fill_n(work.joint_sum, kPixels, A{0});
  std::fill_n(work.logit_sum, kPixels, A{0});
  for (int64_t m = 0; m < mixtures; ++m) {  // each becomes its term
    add_exp_values(kPixels, work.joint_most, joint + m * kPixels, work.joint_sum);
    add_exp_values(kPixels, work.logit_most, logits + m * kSlabStride, work.logit_sum);
  }
  nll_values(kPixels, work.joint_most, work.joint_sum, work.logit_most, work.logit_sum, nll);
  if (params.grad.data == nullptr) return;
  A* out = work.grad.data() + offset;
  const int64_t each = (params.extent.channels - mixtures) / mixtures;
  for (int64_t m = 0; m < mixtures; ++m) {
    weights_of(kPixels, work.joint_sum, work.logit_sum, grad_nll, joint + m * kPixels,
               logits + m * kSlabStride);
    std::copy_n(logits + m * kSlabStride, kPixels, out + m * kSlabStride);
    for (int64_t slot = 0; slot < each; ++slot) {
      scale_values(kPixels, joint + m * kPixels, out + (mixtures * (1 + slot) + m) * kSlabStride);
    }
  }
}

template <typename A>
void load_grad_nll(const LogisticMixtureNllParams& params, const PixelRun& tile, A* grad) {
  if (params.grad_nll.data == nullptr) return std::fill_n(grad, kPixels, A{1}), void();
  const A* given = static_cast<const A*>(params.grad_nll.data);
  if (!params.per_pixel) return std::fill_n(grad, kPixels, given[tile.sample]), void();
  std::copy_n(given + tile.sample * params.extent.pixels + tile.first, tile.count, grad);
}

template <int kColours, typename A>
void run_tasks(const LogisticMixtureNllParams& params, int64_t begin, int64_t end) {
  const PixelTasks tasks(params.extent);
  Workspace<A> work(params.extent.channels, params.mixtures);
  for (int64_t task = begin; task < end; ++task) {
    double sum = 0;
    tasks.for_each_slab(task, [&](const PixelRun& slab) {
      load_planes(params.params, params.extent, slab, work.params.data());
      for (int offset = 0; offset < slab.count; offset += kPixels) {
        const PixelRun tile = slab.tile(offset);
        alignas(64) Plane<A> nll, grad_nll = {};
        load_targets(params, tile, work.targets);
        load_grad_nll(params, tile, grad_nll);
        tile_nll<kColours>(params, work, offset, grad_nll, nll);
        if (params.nll.data == nullptr) continue;
        if (params.per_pixel) {
          std::copy_n(nll, tile.count,
                      static_cast<A*>(params.nll.data) + tile.sample * tasks.pixels + tile.first);
        } else {
          sum += sum_in_order(nll, tile.count);
        }
      }
      if (params.grad.data != nullptr) {
        store_planes(params.grad, params.extent, slab, work.grad.data());
      }
    });
    if (params.nll.data != nullptr && !params.per_pixel) {
      static_cast<double*>(params.partials)[task] = sum;
    }
  }
}

}  // namespace

int64_t count_logistic_mixture_tasks(const LogisticMixtureCommon& params) {
  return PixelTasks(params.extent).count;
}

int64_t count_logistic_mixture_partials_cpu(const LogisticMixtureCommon& params) {
  return PixelTasks(params.extent).count;
}

void launch_logistic_mixture_nll_cpu(const LogisticMixtureNllParams& params, int64_t begin,
                                     int64_t end) {
  with_colours(params.colours, params.params.dtype, [&](auto colours, auto zero) {
    run_tasks<colours, decltype(zero)>(params, begin, end);
  });
}

void finish_logistic_mixture_nll_cpu(const LogisticMixtureNllParams& params) {
  const PixelTasks tasks(params.extent);
  const double* partials = static_cast<const double*>(params.partials);
  with_arithmetic(params.params.dtype, [&](auto zero) {
    using A = decltype(zero);
    for (int64_t sample = 0; sample < params.extent.batch; ++sample) {
      static_cast<A*>(params.nll.data)[sample] =
          static_cast<A>(sum_in_order(partials + sample * tasks.per_sample, tasks.per_sample));
    }
  });
}

}  // namespace hvae
