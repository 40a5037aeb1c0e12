"""What a trained model is used for, one file per use."""

from hvae.inference.reconstruct import reconstruct

__all__ = ["reconstruct"]
