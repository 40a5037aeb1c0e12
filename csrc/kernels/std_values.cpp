#include "kernels/std_values.h"

#include "kernels/simd.h"
#include "math/gaussian.h"

namespace hvae {

namespace {

template <typename A>
HVAE_CLONES void decays(int count, const A* __restrict raw, A* __restrict decay) {
#pragma omp simd
  for (int i = 0; i < count; ++i) decay[i] = softplus_decay(raw[i]);
}

template <typename A>
HVAE_CLONES void values(int count, const A* __restrict raw, A floor, A* __restrict decay_to_value) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    decay_to_value[i] = softplus_std(raw[i], decay_to_value[i], floor);
  }
}

template <typename A>
HVAE_CLONES void values_and_slopes(int count, const A* __restrict raw, A floor, A* __restrict value,
                                   A* __restrict decay_to_slope) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    value[i] = softplus_std(raw[i], decay_to_slope[i], floor);
    decay_to_slope[i] = softplus_slope(raw[i], decay_to_slope[i]);
  }
}

}  // namespace

void softplus_values(int count, const float* raw, float floor, float* value) {
  decays(count, raw, value);
  values(count, raw, floor, value);
}

void softplus_values(int count, const double* raw, double floor, double* value) {
  decays(count, raw, value);
  values(count, raw, floor, value);
}

void softplus_values(int count, const float* raw, float floor, float* value, float* slope) {
  decays(count, raw, slope);
  values_and_slopes(count, raw, floor, value, slope);
}

void softplus_values(int count, const double* raw, double floor, double* value, double* slope) {
  decays(count, raw, slope);
  values_and_slopes(count, raw, floor, value, slope);
}

}  // namespace hvae
