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

// The floor is added, not a maximum: its gradient never dies. It is ignored in the log form.
template <StdForm form, typename T>
HVAE_HD T std_of(T raw, T floor) {
  if constexpr (form == StdForm::kLog) {
    return exp(raw);
  } else {
    const T positive = raw > 0 ? raw : 0;  // drops a NaN, which the other term keeps
    return floor + (positive + log2_1p(exp2(-abs(raw))));
  }
}

template <StdForm form, typename T>
HVAE_HD Std<T> std_with_slope(T raw, T floor) {
  if constexpr (form == StdForm::kLog) {
    const T value = exp(raw);
    return {value, value};
  } else {
    const T t = exp2(-abs(raw));
    const T positive = raw > 0 ? raw : 0;
    return {floor + (positive + log2_1p(t)), (raw > 0 ? 1 : t) / (1 + t)};
  }
}

template <StdForm form, typename T>
HVAE_HD Latent<T> latent(T mean_q, T raw_q, T mean_p, T raw_p, T eps, T floor) {
  const T std_q = std_of<form>(raw_q, floor);
  T inverse_p, ratio, log_ratio;
  if constexpr (form == StdForm::kLog) {
    inverse_p = exp(-raw_p);
    log_ratio = raw_q - raw_p;
    ratio = exp(log_ratio);  // exp(raw_q) / exp(raw_p) may overflow where this does not
  } else {
    inverse_p = 1 / std_of<form>(raw_p, floor);
    ratio = std_q * inverse_p;
    log_ratio = log(ratio);
  }
  const T gap = (mean_q - mean_p) * inverse_p;
  const T half = static_cast<T>(0.5);
  return {mean_q + std_q * eps, half * (ratio * ratio + gap * gap - 1) - log_ratio};
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
    const Std<T> q = std_with_slope<form>(raw_q, floor), p = std_with_slope<form>(raw_p, floor);
    const T inverse_p = 1 / p.value;
    const T ratio = q.value * inverse_p, square = ratio * ratio;
    const T gap = (mean_q - mean_p) * inverse_p;
    const T pull = grad_kl * gap * inverse_p;
    return {grad_z + pull, (grad_z * eps + grad_kl * (square - 1) / q.value) * q.slope, -pull,
            grad_kl * (1 - square - gap * gap) * inverse_p * p.slope};
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
