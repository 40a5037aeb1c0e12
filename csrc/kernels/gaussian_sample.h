// A draw from the prior of a latent group, z = mu_p + temperature sigma_p eps, and its gradient.
#pragma once

#include <cstdint>

#include "kernels/arguments.h"
#include "math/gaussian.h"

namespace hvae {

// All views have the layout of `latent`.
struct GaussianSampleCommon {
  Extent latent;                  // B, C, N and the layout
  int64_t residual_channels = 0;  // W, the channels of p behind its first 2C: not read
  StdForm std = StdForm::kSoftplus;
  double floor = 0;
  double temperature = 1;
  Noise noise;
  Input p;  // (B, 2C + W, N)
};

struct GaussianSampleParams : GaussianSampleCommon {
  Output z;  // (B, C, N), dtype of p
};

struct GaussianSampleBwdParams : GaussianSampleCommon {
  Input grad_z;   // as z
  Output grad_p;  // as p, written whole: zero from channel 2C on
};

// CPU: a list of independent tasks, as in gaussian_latent.h.
int64_t count_gaussian_sample_tasks(const GaussianSampleCommon& params);
void launch_gaussian_sample_cpu(const GaussianSampleParams& params, int64_t begin, int64_t end);
void launch_gaussian_sample_bwd_cpu(const GaussianSampleBwdParams& params, int64_t begin,
                                    int64_t end);

// CUDA: asynchronous on `stream`, a cudaStream_t. Returns the cudaError_t of the launch, 0 if well.
int launch_gaussian_sample_cuda(const GaussianSampleParams& params, void* stream);
int launch_gaussian_sample_bwd_cuda(const GaussianSampleBwdParams& params, void* stream);

}  // namespace hvae
