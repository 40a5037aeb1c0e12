"""The hierarchical VAE and its parts."""

from hvae.models.config import ModelConfig
from hvae.models.hvae import HVAE, Elbo, Latents

__all__ = ["HVAE", "Elbo", "Latents", "ModelConfig"]
