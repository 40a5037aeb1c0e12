"""Resizing protocols: how images reach the resolution of a feature network.

A Frechet distance is a statement about the filter as much as about the images: between these
protocols lie up to 23 grey levels RMSE (1024 px to 299), which moves FID by more than most papers
claim. A protocol is therefore named beside every score.

    clean           bicubic with antialias, clamped, not rounded; agrees with clean-fid
    legacy-pytorch  bilinear without antialias, half-pixel centres; pytorch-fid
    legacy-tf       TensorFlow 1 bilinear: no antialias, no half-pixel centres; torch-fidelity,
                    StyleGAN

Clean: Parmar et al., "On Aliased Resizing and Surprising Subtleties in GAN Evaluation" (arXiv
2104.11222). All run in float32 on the images' device, and an image's result does not depend on the
others of its batch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from hvae.errors import UserError

Resize = Callable[[Tensor, int], Tensor]


def to_rgb(images: Tensor) -> Tensor:
    """Returns images with three channels, uint8 (N, 3, H, W); grey is repeated.

    Raises:
        ValueError: `images` are not uint8 (N, C, H, W) with C of 1 or 3 and at least one pixel.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8 in 0..255, got {images.dtype}")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        raise ValueError(f"images must be (N, 1 or 3, H, W), got {tuple(images.shape)}")
    return images.expand(-1, 3, -1, -1)


def resize(images: Tensor, resolution: int, protocol: str) -> Tensor:
    """Returns images of `resolution` x `resolution`, float32 (N, 3, R, R) in 0..255, unrounded.

    The aspect ratio is not kept, as in every implementation these protocols stand for. Images that
    have the resolution already pass through unchanged.

    Args:
        images: uint8 (N, C, H, W), C = 1 or 3.
        resolution: pixels per side of the result.
        protocol: one of `PROTOCOLS`.

    Raises:
        UserError: there is no such protocol.
        ValueError: the images are not as above.
    """
    check_protocol(protocol, tuple(PROTOCOLS))
    # Contiguous: some kernels round channels_last tensors differently.
    return PROTOCOLS[protocol](to_rgb(images).float().contiguous(), resolution)


def check_protocol(protocol: str, known: tuple[str, ...], extractor: str | None = None) -> None:
    """Raises UserError unless the protocol is one of those known, in general or to an extractor."""
    if protocol not in known:
        owner = f" with {extractor}" if extractor else ""
        raise UserError(f"protocol{owner}: wanted one of {', '.join(known)}, got {protocol!r}")


def _clean(x: Tensor, resolution: int) -> Tensor:
    # The bicubic kernel has negative lobes and overshoots at edges.
    return F.interpolate(x, (resolution, resolution), mode="bicubic", antialias=True).clamp(0, 255)


def _legacy_pytorch(x: Tensor, resolution: int) -> Tensor:
    return F.interpolate(x, (resolution, resolution), mode="bilinear")


def _legacy_tf(x: Tensor, resolution: int) -> Tensor:
    return _sample_tf(_sample_tf(x, 3, resolution), 2, resolution)


def _sample_tf(x: Tensor, dim: int, resolution: int) -> Tensor:
    """One dimension, linearly: output i lies at i * in / out, the last pixel is repeated.

    As TensorFlow 1's `resize_bilinear` with `align_corners=False`, the scale in float32 too.
    """
    size = x.shape[dim]
    index = torch.arange(resolution, dtype=torch.float32, device=x.device)
    position = index * torch.tensor(size / resolution, dtype=torch.float32, device=x.device)
    lower = position.long().clamp(max=size - 1)
    upper = (lower + 1).clamp(max=size - 1)
    weight = (position - lower).view(-1, *[1] * (x.ndim - 1 - dim))
    low, high = x.index_select(dim, lower), x.index_select(dim, upper)
    return low + (high - low) * weight


PROTOCOLS: dict[str, Resize] = {
    "clean": _clean,
    "legacy-pytorch": _legacy_pytorch,
    "legacy-tf": _legacy_tf,
}
