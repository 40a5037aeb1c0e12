// A latent group in one pass: z = mu_q + sigma_q eps, KL(q || p), y = x + h, and the gradients.
//
// The maths is in math/gaussian.h, the noise in math/philox.h. No torch here: the caller checks,
// allocates, and gives CPU work to its threads.
#pragma once

#include <cstdint>

#include "kernels/arguments.h"
#include "math/gaussian.h"

namespace hvae {

// What forward and backward share. All views have the layout of `latent`.
struct GaussianLatentCommon {
  Extent latent;                  // B, C, N and the layout
  int64_t residual_channels = 0;  // W, the channels of p behind its first 2C
  int64_t groups = 1;             // G runs of adjacent channels that KL is summed over; 0: no sum
  StdForm std = StdForm::kSoftplus;
  double floor = 0;
  Noise noise;
  Input q;  // (B, 2C, N)
  Input p;  // (B, 2C + W, N), dtype of q
};

struct GaussianLatentParams : GaussianLatentCommon {
  Input x;    // (B, W, N), any dtype; null: no y
  Output z;   // (B, C, N), dtype of q
  Output y;   // (B, W, N), dtype of x
  Output kl;  // G > 0: (B, G), contiguous; G = 0: (B, C, N). float, double for double
  // The sums of the chunks, `count_gaussian_latent_partials_*` of them: double on the CPU, the
  // dtype of kl on CUDA. Unused, and may be null, when there are none.
  void* partials = nullptr;
};

struct GaussianLatentBwdParams : GaussianLatentCommon {
  Input grad_z;   // as z; null: zero
  Input grad_kl;  // as kl; null: zero
  Input grad_y;   // as y; null: zero
  Output grad_q;  // as q, written whole
  Output grad_p;  // as p, written whole: its channels from 2C on are grad_y
};

// CPU. A launch is a list of independent tasks, so that any number of threads may share them;
// which thread runs a task does not change a bit of the result.
int64_t count_gaussian_latent_tasks(const GaussianLatentCommon& params);
int64_t count_gaussian_latent_partials_cpu(const GaussianLatentCommon& params);
void launch_gaussian_latent_cpu(const GaussianLatentParams& params, int64_t begin, int64_t end);
void launch_gaussian_latent_bwd_cpu(const GaussianLatentBwdParams& params, int64_t begin,
                                    int64_t end);
// Adds up the partials of all tasks of a forward; call once, after the last one. G > 0 only.
void finish_gaussian_latent_cpu(const GaussianLatentParams& params);

// CUDA: asynchronous on `stream`, a cudaStream_t. Returns the cudaError_t of the launch, 0 if well.
int64_t count_gaussian_latent_partials_cuda(const GaussianLatentCommon& params);
int launch_gaussian_latent_cuda(const GaussianLatentParams& params, void* stream);
int launch_gaussian_latent_bwd_cuda(const GaussianLatentBwdParams& params, void* stream);

}  // namespace hvae
