"""Extractors by name."""

from pathlib import Path

import torch

from hvae.errors import UserError
from hvae.metrics.features.base import Extractor
from hvae.metrics.features.custom import open_custom
from hvae.metrics.features.dinov2 import open_dinov2
from hvae.metrics.features.download import Progress
from hvae.metrics.features.efficientnet_lite import VARIANTS, open_efficientnet_lite
from hvae.metrics.features.inception import open_inception

NAMES = ("inception", *VARIANTS, "dinov2")
_MOST_DIGITS = 40  # of a resolution: far beyond any, and below what Python refuses to convert


def open_extractor(
    name: str,
    *,
    protocol: str | None = None,
    weights: Path | None = None,
    download: bool = False,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Extractor:
    """Returns the extractor of a name, its weights loaded and checked.

    Args:
        name: one of `NAMES`, "lite0@R" for another resolution than 64, or "module:Class".
        protocol: how images are resized, see `hvae.metrics.protocol`; None is the extractor's
            default, "clean" for those of `NAMES`.
        weights: where the weights of inception or dinov2 lie, see
            `hvae.metrics.features.weights`; None: searched for.
        download: fetch the weights of inception if they are missing.
        device: where the network runs.
        progress: called while downloading, with bytes received and expected.

    Raises:
        UserError: there is no such extractor or protocol, the weights or a package are missing, or
            weights are given to an extractor that brings its own.
    """
    if name == "inception":
        return open_inception(
            protocol or "clean",
            weights,
            download_missing=download,
            device=device,
            progress=progress,
        )
    if name == "dinov2":
        return open_dinov2(protocol or "clean", weights, device=device)
    if weights is not None:
        raise UserError(f"{name} brings its own weights; leave {weights} out")
    if ":" in name:
        return open_custom(name, protocol, device=device)
    base, at, resolution = name.partition("@")
    is_number = resolution.isascii() and resolution.isdecimal() and len(resolution) < _MOST_DIGITS
    if base in VARIANTS and (not at or is_number):
        side = int(resolution or 64)
        return open_efficientnet_lite(base, protocol or "clean", resolution=side, device=device)
    raise UserError(f"features: wanted {', '.join(NAMES)} or module:Class, got {name[:80]!r}")
