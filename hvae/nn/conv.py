"""Convolutions of one, two or three spatial dimensions behind one name."""

from collections.abc import Sequence
from typing import Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Conv: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d

Border: TypeAlias = Literal["zeros", "replicate"]

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONVS: dict[int, type[Conv]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_FUNCTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def in_fp32(layer: nn.Module, x: Tensor) -> Tensor:
    """Returns `layer(x)` in float32 even inside a bfloat16 autocast region; float64 stays float64.

    Distribution parameters need it: a standard deviation far below |mean| vanishes in bfloat16.
    """
    with torch.autocast(x.device.type, enabled=False):
        return cast(Tensor, layer(x if x.dtype == torch.float64 else x.float()))


def conv(
    ndim: int, in_channels: int, out_channels: int, kernel: int = 1, *, border: Border = "zeros"
) -> Conv:
    """Returns a convolution that keeps the size (odd `kernel`), with default weights, zero bias.

    What lies beyond the `border` is "zeros", or the nearest value ("replicate").
    """
    layer = _CONVS[ndim](
        in_channels, out_channels, kernel, padding=kernel // 2, padding_mode=border
    )
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def zero_conv(ndim: int, in_channels: int, out_channels: int) -> Conv:
    """Returns a 1x1 convolution that starts at zero.

    It leaves the global generator alone, so that the weights beside it start as they would without.
    """
    with torch.random.fork_rng(devices=[]):
        layer = conv(ndim, in_channels, out_channels)
    nn.init.zeros_(layer.weight)
    return layer


def conv_over_parts(layer: Conv, parts: Sequence[Tensor]) -> Tensor:
    """Returns a 1x1 convolution of the concatenation of `parts` along channels, not forming it."""
    apply = _FUNCTIONS[layer.weight.ndim - 2]
    weights = layer.weight.split([part.shape[1] for part in parts], 1)
    result: Tensor = apply(parts[0], weights[0], layer.bias)
    for part, columns in zip(parts[1:], weights[1:], strict=True):
        result = result + apply(part, columns)
    return result
