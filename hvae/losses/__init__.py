"""What training minimises."""

from hvae.losses.elbo import objective
from hvae.losses.kl_share import kl_share_weights
from hvae.losses.schedule import cyclical_ramp, linear_ramp
from hvae.losses.spectral import SpectralPenalty

__all__ = ["SpectralPenalty", "cyclical_ramp", "kl_share_weights", "linear_ramp", "objective"]
