"""Changes of resolution, blur among them, and of channel count that have no weights."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def average_pool(x: Tensor, factor: int) -> Tensor:
    """Returns (N, C, *S / factor): means over blocks of `factor` along every axis."""
    return x if factor == 1 else _POOLS[x.ndim - 2](x, factor)


def gaussian_blur(x: Tensor, deviation: float) -> Tensor:
    """Returns (N, C, *S): means weighed by a Gaussian, cut at three deviations, along every axis.

    What lies beyond a border is taken for what lies on it.

    Args:
        x: (N, C, *S).
        deviation: of the Gaussian, in elements; 0 changes nothing.
    """
    if deviation == 0:
        return x
    radius = math.ceil(3 * deviation)
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    line = torch.softmax(-((offsets / deviation) ** 2) / 2, 0)
    for axis in range(2, x.ndim):
        last = x.movedim(axis, -1)
        rows = F.pad(last.reshape(-1, 1, last.shape[-1]), (radius, radius), mode="replicate")
        x = F.conv1d(rows, line.view(1, 1, -1)).view(last.shape).movedim(-1, axis)
    return x


def upsample(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns (N, C, *shape): each element repeated; `shape` is a multiple of that of `x`."""
    if all(side == 1 for side in x.shape[2:]):
        return x.expand(*x.shape[:2], *shape)
    return F.interpolate(x, size=shape, mode="nearest")


def fit_channels(x: Tensor, channels: int) -> Tensor:
    """Returns (N, channels, *S): truncated, or filled up with zeros (VDVAE's width changes)."""
    missing = channels - x.shape[1]
    if missing <= 0:
        return x[:, :channels]
    return F.pad(x, [0, 0] * (x.ndim - 2) + [0, missing])


def patchify(x: Tensor, side: int) -> Tensor:
    """Returns (N, C side^d, *S / side): each patch folded into the channels, offsets fastest."""
    if side == 1:
        return x
    if x.ndim == 4:
        return F.pixel_unshuffle(x, side)
    spatial = x.ndim - 2
    for axis in range(spatial):
        x = x.unflatten(2 + 2 * axis, (-1, side))
    offsets, cells = range(3, x.ndim, 2), range(2, x.ndim, 2)
    return x.permute(0, 1, *offsets, *cells).flatten(1, 1 + spatial)


def unpatchify(x: Tensor, side: int) -> Tensor:
    """Returns (N, C / side^d, *S side), the inverse of `patchify`."""
    if side == 1:
        return x
    if x.ndim == 4:
        return F.pixel_shuffle(x, side)
    spatial = x.ndim - 2
    x = x.unflatten(1, (-1, *[side] * spatial))
    order = [i for axis in range(spatial) for i in (2 + spatial + axis, 2 + axis)]
    x = x.permute(0, 1, *order)
    for axis in range(spatial):
        x = x.flatten(2 + axis, 3 + axis)
    return x
