// Adds the compiled implementations to the ops that hvae/ops defines. Python must come first.
#include <torch/csrc/stable/library.h>

#include "ops/ops.h"

STABLE_TORCH_LIBRARY_IMPL(hvae, CPU, m) {
  m.impl("gaussian_latent", TORCH_BOX(&hvae::gaussian_latent));
  m.impl("gaussian_latent_bwd", TORCH_BOX(&hvae::gaussian_latent_bwd));
  m.impl("gaussian_sample", TORCH_BOX(&hvae::gaussian_sample));
  m.impl("gaussian_sample_bwd", TORCH_BOX(&hvae::gaussian_sample_bwd));
  m.impl("logistic_mixture_nll", TORCH_BOX(&hvae::logistic_mixture_nll));
  m.impl("logistic_mixture_nll_bwd", TORCH_BOX(&hvae::logistic_mixture_nll_bwd));
  m.impl("logistic_mixture_nll_grad", TORCH_BOX(&hvae::logistic_mixture_nll_grad));
  m.impl("logistic_mixture_nll_grad_bwd", TORCH_BOX(&hvae::logistic_mixture_nll_grad_bwd));
  m.impl("logistic_mixture_sample", TORCH_BOX(&hvae::logistic_mixture_sample));
}

#ifdef HVAE_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(hvae, CUDA, m) {
  m.impl("gaussian_latent", TORCH_BOX(&hvae::gaussian_latent));
  m.impl("gaussian_latent_bwd", TORCH_BOX(&hvae::gaussian_latent_bwd));
  m.impl("gaussian_sample", TORCH_BOX(&hvae::gaussian_sample));
  m.impl("gaussian_sample_bwd", TORCH_BOX(&hvae::gaussian_sample_bwd));
  m.impl("logistic_mixture_nll", TORCH_BOX(&hvae::logistic_mixture_nll));
  m.impl("logistic_mixture_nll_bwd", TORCH_BOX(&hvae::logistic_mixture_nll_bwd));
  m.impl("logistic_mixture_sample", TORCH_BOX(&hvae::logistic_mixture_sample));
}
#endif
