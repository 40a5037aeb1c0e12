// The ops' implementations, CPU and CUDA alike. Schemas and meaning: hvae/ops/gaussian_latent.py.
#pragma once

#include <cstdint>
#include <tuple>

#include "ops/check.h"

namespace hvae {

std::tuple<Tensor, Tensor, Tensor> gaussian_latent(const Tensor& q, const Tensor& p,
                                                   const OptionalTensor& x,
                                                   const OptionalTensor& eps, const Tensor& rng,
                                                   int64_t stream, int64_t std, double floor,
                                                   int64_t kl_groups);

std::tuple<Tensor, Tensor> gaussian_latent_bwd(const OptionalTensor& grad_z,
                                               const OptionalTensor& grad_kl,
                                               const OptionalTensor& grad_y, const Tensor& q,
                                               const Tensor& p, const OptionalTensor& eps,
                                               const Tensor& rng, int64_t stream, int64_t std,
                                               double floor, int64_t kl_groups);

Tensor gaussian_sample(const Tensor& p, const OptionalTensor& eps, const Tensor& rng,
                       int64_t stream, int64_t z_channels, int64_t std, double floor,
                       double temperature);

Tensor gaussian_sample_bwd(const Tensor& grad_z, const Tensor& p, const OptionalTensor& eps,
                           const Tensor& rng, int64_t stream, int64_t z_channels, int64_t std,
                           double floor, double temperature);

// hvae/ops/logistic_mixture.py

Tensor logistic_mixture_nll(const Tensor& params, const Tensor& x, int64_t bits, bool per_pixel);

Tensor logistic_mixture_nll_bwd(const Tensor& grad_nll, const Tensor& params, const Tensor& x,
                                int64_t bits, bool per_pixel);

// CPU only.
std::tuple<Tensor, Tensor> logistic_mixture_nll_grad(const Tensor& params, const Tensor& x,
                                                     int64_t bits, bool per_pixel);

// CPU only.
Tensor logistic_mixture_nll_grad_bwd(const Tensor& grad_nll, const Tensor& grad, const Tensor& nll);

Tensor logistic_mixture_sample(const Tensor& params, const Tensor& rng, int64_t stream,
                               int64_t colours, int64_t bits, double temperature);

}  // namespace hvae
