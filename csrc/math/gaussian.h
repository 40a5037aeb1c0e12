// One element of a Gaussian latent group: the draw, the KL to the prior, and their gradients.
//
//   sigma(s) = exp(s)  or  floor + log2(1 + 2^s)     log form, softplus form with beta = ln 2
//   z  = mu_q + sigma_q eps
//   KL = (r^2 + d^2 - 1) / 2 - ln r                  r = sigma_q / sigma_p
//                                                    d = (mu_q - mu_p) / sigma_p
//
// Kingma & Welling, arXiv:1312.6114. T is float or double; `raw` is s, the std before its form.
#pragma once

#include <cstdint>

#include "math/elementary.h"
#include "math/macros.h"

namespace hvae {

// The values are those of the ops' `std` argument.
enum class StdForm : int32_t { kLog = 0, kSoftplus = 1 };

template <typename T>
struct Std {
  T value;  // sigma(s)
  T slope;  // sigma'(s)
};

template <typename T>
struct Latent {
  T z, kl;
};

template <typename T>
struct LatentGrad {
  T mean_q, raw_q, mean_p, raw_p;
};

template <typename T>
struct SampleGrad {
  T mean, raw;
};

// The softplus form from t = 2^-|s|. The floor is added, not a maximum: its gradient never dies.
template <typename T>
HVAE_HD T softplus_decay(T raw) {
  return exp2_minus_abs(raw);
}

template <typename T>
HVAE_HD T softplus_std(T raw, T decay, T floor) {
  const T positive = raw > 0 ? raw : 0;  // drops a NaN, which the other term keeps
  return floor + (positive + log2_1p(decay));
}

template <typename T>
HVAE_HD T softplus_slope(T raw, T decay) {
  return (raw > 0 ? 1 : decay) / (1 + decay);
}

// The log form ignores the floor.
template <StdForm form, typename T>
HVAE_HD T std_of(T raw, T floor) {
  if constexpr (form == StdForm::kLog) {
    return exp(raw);
  } else {
    return softplus_std(raw, softplus_decay(raw), floor);
  }
}

template <StdForm form, typename T>
HVAE_HD Std<T> std_with_slope(T raw, T floor) {
  if constexpr (form == StdForm::kLog) {
    const T value = exp(raw);
    return {value, value};
  } else {
    const T decay = softplus_decay(raw);
    return {softplus_std(raw, decay, floor), softplus_slope(raw, decay)};
  }
}

template <typename T>
HVAE_HD Latent<T> latent_of_stds(T mean_q, T std_q, T mean_p, T std_p, T eps) {
  const T inverse_p = 1 / std_p;
  const T ratio = std_q * inverse_p, gap = (mean_q - mean_p) * inverse_p;
  const T half = static_cast<T>(0.5);
  return {mean_q + std_q * eps, half * (ratio * ratio + gap * gap - 1) - log(ratio)};
}

template <StdForm form, typename T>
HVAE_HD Latent<T> latent(T mean_q, T raw_q, T mean_p, T raw_p, T eps, T floor) {
  if constexpr (form == StdForm::kLog) {
    const T std_q = exp(raw_q), inverse_p = exp(-raw_p);
    const T log_ratio = raw_q - raw_p;
    const T ratio = exp(log_ratio);  // std_q * inverse_p may overflow where this does not
    const T gap = (mean_q - mean_p) * inverse_p;
    const T half = static_cast<T>(0.5);
    return {mean_q + std_q * eps, half * (ratio * ratio + gap * gap - 1) - log_ratio};
  } else {
    return latent_of_stds(mean_q, std_of<form>(raw_q, floor), mean_p, std_of<form>(raw_p, floor),
                          eps);
  }
}

template <typename T>
HVAE_HD LatentGrad<T> latent_grad_of_stds(T mean_q, Std<T> q, T mean_p, Std<T> p, T eps, T grad_z,
                                          T grad_kl) {
  const T inverse_p = 1 / p.value;
  const T ratio = q.value * inverse_p, square = ratio * ratio;
  const T gap = (mean_q - mean_p) * inverse_p;
  const T pull = grad_kl * gap * inverse_p;
  return {grad_z + pull, (grad_z * eps + grad_kl * (square - 1) / q.value) * q.slope, -pull,
          grad_kl * (1 - square - gap * gap) * inverse_p * p.slope};
}

template <StdForm form, typename T>
HVAE_HD LatentGrad<T> latent_grad(T mean_q, T raw_q, T mean_p, T raw_p, T eps, T grad_z, T grad_kl,
                                  T floor) {
  if constexpr (form == StdForm::kLog) {
    const T inverse_p = exp(-raw_p), ratio = exp(raw_q - raw_p);
    const T gap = (mean_q - mean_p) * inverse_p, square = ratio * ratio;
    const T pull = grad_kl * gap * inverse_p;
    return {grad_z + pull, grad_z * eps * exp(raw_q) + grad_kl * (square - 1), -pull,
            grad_kl * (1 - square - gap * gap)};
  } else {
    return latent_grad_of_stds(mean_q, std_with_slope<form>(raw_q, floor), mean_p,
                               std_with_slope<form>(raw_p, floor), eps, grad_z, grad_kl);
  }
}

// z = mu + temperature sigma eps.
template <StdForm form, typename T>
HVAE_HD T sample(T mean, T raw, T eps, T floor, T temperature) {
  return mean + temperature * std_of<form>(raw, floor) * eps;
}

template <StdForm form, typename T>
HVAE_HD SampleGrad<T> sample_grad(T raw, T eps, T grad_z, T floor, T temperature) {
  const T slope = std_with_slope<form>(raw, floor).slope;
  return {grad_z, grad_z * temperature * slope * eps};
}

}  // namespace hvae
