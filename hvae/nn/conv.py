"""Convolutions of one, two or three spatial dimensions behind one name."""

from typing import cast

import torch
from torch import Tensor, nn

_CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def in_fp32(layer: nn.Module, x: Tensor) -> Tensor:
    """Returns `layer(x)` in float32 even inside a bfloat16 autocast region; float64 stays float64.

    Distribution parameters need it: a standard deviation far below |mean| vanishes in bfloat16.
    """
    with torch.autocast(x.device.type, enabled=False):
        return cast(Tensor, layer(x if x.dtype == torch.float64 else x.float()))


def conv(ndim: int, in_channels: int, out_channels: int, kernel: int = 1) -> nn.Module:
    """Returns a same-size convolution (odd `kernel`) with PyTorch's default weights and zero bias."""
    layer = _CONVS[ndim](in_channels, out_channels, kernel, padding=kernel // 2)
    nn.init.zeros_(cast(Tensor, layer.bias))
    return layer
