"""Levels of uint8 images: the upper `bits` bits of a value, and where they stand in [-1, 1].

Level k in 0..L-1, L = 2^bits, stands at t = (2k - (L - 1)) / (L - 1), in the middle of a bin of
width 2 / (L - 1). So the lowest stands at -1, the highest at 1, as in `hvae.ops.logistic_mixture`.
"""

import torch
from torch import Tensor


def to_levels(x: Tensor, bits: int) -> Tensor:
    """Returns the levels of uint8 images, uint8."""
    return x >> (8 - bits)


def to_image(levels: Tensor, bits: int) -> Tensor:
    """Returns uint8 images of integer levels; level L - 1 is 255."""
    image: Tensor = levels * 255 / (2**bits - 1)
    return image.round().to(torch.uint8)


def position(levels: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """Returns where levels stand in [-1, 1]."""
    last = 2**bits - 1
    place: Tensor = (2 * levels.to(dtype) - last) / last
    return place


def nearest_level(value: Tensor, bits: int) -> Tensor:
    """Returns the level nearest to a value, floating point; level 0 for one that is no number."""
    last = 2**bits - 1
    level: Tensor = ((value + 1) / 2 * last).nan_to_num(0.0).clamp(0, last).round()
    return level


def to_grey(value: Tensor) -> Tensor:
    """Returns a value of [-1, 1] in image units 0..255."""
    return (value + 1) * 127.5
