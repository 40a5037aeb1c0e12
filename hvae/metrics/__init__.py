"""Scores: how likely a model finds images it has not seen, and how its samples compare with them.

Names load on first use: the accumulating metrics import torchmetrics, which takes a second and
fails in some environments (see `hvae.metrics.torchmetrics_import`), and much here does not need it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hvae.metrics.bits_per_dim import BitsPerDim
    from hvae.metrics.features import Extractor, in_chunks, open_extractor
    from hvae.metrics.fidelity import psnr, ssim
    from hvae.metrics.frechet import frechet_distance, frechet_from_features
    from hvae.metrics.frechet_metric import FrechetDistance
    from hvae.metrics.infinity import Extrapolation, frechet_infinity
    from hvae.metrics.kernel import KernelEstimate, kernel_distance
    from hvae.metrics.kernel_metric import KernelDistance
    from hvae.metrics.likelihood import (
        LikelihoodResult,
        evaluate_likelihood,
        importance_bound,
        nats_to_bits_per_dim,
    )
    from hvae.metrics.moments import Moments, Statistics, statistics
    from hvae.metrics.neighbours import PRDC, prdc
    from hvae.metrics.prdc_metric import PrecisionRecall
    from hvae.metrics.resampling import Interval, bootstrap
    from hvae.metrics.sharpness import Sharpness

__all__ = [
    "PRDC",
    "BitsPerDim",
    "Extractor",
    "Extrapolation",
    "FrechetDistance",
    "Interval",
    "KernelDistance",
    "KernelEstimate",
    "LikelihoodResult",
    "Moments",
    "PrecisionRecall",
    "Sharpness",
    "Statistics",
    "bootstrap",
    "evaluate_likelihood",
    "frechet_distance",
    "frechet_from_features",
    "frechet_infinity",
    "importance_bound",
    "in_chunks",
    "kernel_distance",
    "nats_to_bits_per_dim",
    "open_extractor",
    "prdc",
    "psnr",
    "ssim",
    "statistics",
]

_HOMES = {
    "BitsPerDim": "bits_per_dim",
    "Extractor": "features",
    "in_chunks": "features",
    "open_extractor": "features",
    "psnr": "fidelity",
    "ssim": "fidelity",
    "frechet_distance": "frechet",
    "frechet_from_features": "frechet",
    "FrechetDistance": "frechet_metric",
    "Extrapolation": "infinity",
    "frechet_infinity": "infinity",
    "KernelEstimate": "kernel",
    "kernel_distance": "kernel",
    "KernelDistance": "kernel_metric",
    "LikelihoodResult": "likelihood",
    "evaluate_likelihood": "likelihood",
    "importance_bound": "likelihood",
    "nats_to_bits_per_dim": "likelihood",
    "Moments": "moments",
    "Statistics": "moments",
    "statistics": "moments",
    "PRDC": "neighbours",
    "prdc": "neighbours",
    "PrecisionRecall": "prdc_metric",
    "Interval": "resampling",
    "bootstrap": "resampling",
    "Sharpness": "sharpness",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
