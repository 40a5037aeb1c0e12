"""Scores: how likely a model finds images it has not seen.

Names load on first use: `BitsPerDim` imports torchmetrics, which takes a second and fails in some
environments (see `hvae.metrics.base`), and nothing else here needs it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hvae.metrics.bits_per_dim import BitsPerDim
    from hvae.metrics.likelihood import (
        LikelihoodResult,
        evaluate_likelihood,
        importance_bound,
        nats_to_bits_per_dim,
    )

__all__ = [
    "BitsPerDim",
    "LikelihoodResult",
    "evaluate_likelihood",
    "importance_bound",
    "nats_to_bits_per_dim",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "bits_per_dim" if name == "BitsPerDim" else "likelihood"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
