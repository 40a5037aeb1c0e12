// The negative log-likelihood of integer levels under a discretised logistic mixture, its gradient,
// and draws from it.
//
// The maths is in math/logistic.h, the noise in math/philox.h. No torch here: the caller checks,
// allocates, and gives CPU work to its threads.
//
// Channels of `params`, M components: logits 0..M-1; then for each colour its M means, M raw
// log-scales and, with three colours, M raw coefficients.
#pragma once

#include <cstdint>

#include "kernels/arguments.h"

namespace hvae {

struct LogisticMixtureCommon {
  Extent extent;        // B, P, N and the layout of all views; P = 3M for one colour, 10M for three
  int64_t colours = 1;  // 1 or 3
  int64_t mixtures = 1;
  int64_t bits = 8;  // levels are 0 .. 2^bits - 1
  double log_scale_floor = -7;
  Input params;  // (B, P, N)
};

// Levels of (B, colours, N), in the layout of `extent`.
struct LevelsView {
  const void* data = nullptr;
  int32_t bytes = 1;  // of a level: 1 (unsigned), 2 (signed) or 4 (signed)
  int64_t batch_stride = 0;
  int64_t pixel_stride = 0;  // channels-last only
};

// Both, or one of nll and gradient.
struct LogisticMixtureNllParams : LogisticMixtureCommon {
  LevelsView x;
  bool per_pixel = false;
  Output nll;      // (B,), or (B, N) per pixel; float, double for double. Null: not wanted
  Input grad_nll;  // as nll; null: 1
  Output grad;     // as params, times grad_nll. Null: not wanted
  // The sums of the chunks, where nll is (B,): `count_logistic_mixture_partials_*` of them, double
  // on the CPU, the dtype of nll on CUDA.
  void* partials = nullptr;
};

struct LogisticMixtureSampleParams : LogisticMixtureCommon {
  double temperature = 1;     // multiplies the scale of the picked component
  Noise noise;                // a block per pixel: word 0 picks, the next ones give a colour each
  int32_t* levels = nullptr;  // (B, colours, N), dense in the layout of `extent`
};

// CPU. Tasks are independent: which thread runs one does not change a bit of the result.
int64_t count_logistic_mixture_tasks(const LogisticMixtureCommon& params);
int64_t count_logistic_mixture_partials_cpu(const LogisticMixtureCommon& params);
void launch_logistic_mixture_nll_cpu(const LogisticMixtureNllParams& params, int64_t begin,
                                     int64_t end);
// Adds up the partials of all tasks; call once, after the last one, where nll is (B,).
void finish_logistic_mixture_nll_cpu(const LogisticMixtureNllParams& params);

void launch_logistic_mixture_sample_cpu(const LogisticMixtureSampleParams& params, int64_t begin,
                                        int64_t end);

// CUDA: asynchronous on `stream`, a cudaStream_t. Returns the cudaError_t of the launch, 0 if well.
int64_t count_logistic_mixture_partials_cuda(const LogisticMixtureCommon& params);
int launch_logistic_mixture_nll_cuda(const LogisticMixtureNllParams& params, void* stream);
int launch_logistic_mixture_sample_cuda(const LogisticMixtureSampleParams& params, void* stream);

}  // namespace hvae
