"""The fused operations: each with a pure-PyTorch reference, and compiled kernels where built.

Importing this package loads the compiled kernels, or says why the references run instead.
"""

from hvae import _native
from hvae.ops.common import reference
from hvae.ops.gaussian_latent import GaussianLatent, gaussian_latent
from hvae.ops.gaussian_sample import gaussian_sample
from hvae.ops.logistic_mixture import logistic_mixture_nll
from hvae.ops.logistic_mixture_sample import logistic_mixture_mean, logistic_mixture_sample
from hvae.ops.philox import derive_seed, make_rng, philox_normal, philox_uniform

_native.ensure_loaded()

__all__ = [
    "GaussianLatent",
    "derive_seed",
    "gaussian_latent",
    "gaussian_sample",
    "logistic_mixture_mean",
    "logistic_mixture_nll",
    "logistic_mixture_sample",
    "make_rng",
    "philox_normal",
    "philox_uniform",
    "reference",
]
