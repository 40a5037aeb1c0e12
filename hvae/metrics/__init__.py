"""Scores: how likely a model finds images it has not seen, and how its samples compare with them.

Names load on first use: `BitsPerDim` imports torchmetrics, which takes a second and fails in some
environments (see `hvae.metrics.base`), and nothing else here needs it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hvae.metrics.bits_per_dim import BitsPerDim
    from hvae.metrics.features import Extractor, in_chunks, open_extractor
    from hvae.metrics.likelihood import (
        LikelihoodResult,
        evaluate_likelihood,
        importance_bound,
        nats_to_bits_per_dim,
    )

__all__ = [
    "BitsPerDim",
    "Extractor",
    "LikelihoodResult",
    "evaluate_likelihood",
    "importance_bound",
    "in_chunks",
    "nats_to_bits_per_dim",
    "open_extractor",
]

_MODULES = {
    "BitsPerDim": "bits_per_dim",
    **dict.fromkeys(["Extractor", "in_chunks", "open_extractor"], "features"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES.get(name, "likelihood")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
