"""Hierarchical variational autoencoders: training, refinement, scoring and use.

Names are loaded on first use, so that `import hvae` does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hvae import data, inference, metrics, ops, training
    from hvae._native import build_info
    from hvae.checkpoint import load
    from hvae.models import HVAE, ModelConfig

_MODULES = ("data", "inference", "metrics", "ops", "training")
_NAMES = {
    "HVAE": "hvae.models",
    "ModelConfig": "hvae.models",
    "build_info": "hvae._native",
    "load": "hvae.checkpoint",
}

__all__ = [
    "HVAE",
    "ModelConfig",
    "__version__",
    "build_info",
    "data",
    "inference",
    "load",
    "metrics",
    "ops",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"hvae.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'hvae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
