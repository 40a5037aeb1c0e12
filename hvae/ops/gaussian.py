"""What the two Gaussian ops share: parameters, std forms, noise, and the checks on arguments.

A Gaussian is given by a convolution output (B, 2C + W, *S): C means, C raw stds s, and W further
channels that belong to somebody else. S is 1 to 3 spatial dimensions.

    "log"       sigma(s) = exp(s)                   sigma'(s) = sigma(s)
    "softplus"  sigma(s) = floor + log2(1 + 2^s)    sigma'(s) = 1 / (1 + 2^-s)

The floor is added, not clamped to, so that its gradient never dies.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hvae.ops.common import arithmetic_dtype
from hvae.ops.philox import check_noise, philox_normal

StdForm = Literal["softplus", "log"]

# The codes of the op schemas, known to the kernels too.
LOG = 0
SOFTPLUS = 1
_STD_CODES: dict[str, int] = {"log": LOG, "softplus": SOFTPLUS}

_LN2 = math.log(2.0)
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def parameters_of(buffer: Tensor, z_channels: int) -> tuple[Tensor, Tensor]:
    """Mean and raw std of a buffer (B, 2C + W, *S), both (B, C, *S) in the arithmetic dtype."""
    wide = buffer[:, : 2 * z_channels].to(arithmetic_dtype(buffer.dtype))
    return wide[:, :z_channels], wide[:, z_channels:]


def std_of(raw: Tensor, std: int, floor: float) -> Tensor:
    """sigma(s)."""
    if std == LOG:
        return torch.exp(raw)
    # Beyond the threshold softplus returns its argument: exact to float64 at 40, not at torch's 20.
    return floor + F.softplus(raw, beta=_LN2, threshold=40.0)


def std_slope_of(raw: Tensor, std: int) -> Tensor:
    """sigma'(s)."""
    return torch.exp(raw) if std == LOG else torch.sigmoid(_LN2 * raw)


def noise_for(mean: Tensor, eps: Tensor | None, rng: Tensor, stream: int) -> Tensor:
    """The noise of a draw around `mean`, in its shape and dtype: `eps` if given, else Philox."""
    return philox_normal(rng, stream, mean.shape, mean.dtype) if eps is None else eps.to(mean.dtype)


def std_code(std: StdForm) -> int:
    """The number of a std form in the op schemas; ValueError for an unknown name."""
    if std not in _STD_CODES:
        raise ValueError(f"std must be one of {sorted(_STD_CODES)}, got {std!r}")
    return _STD_CODES[std]


def check_buffer(name: str, buffer: Tensor) -> None:
    """Raise TypeError or ValueError unless `buffer` is a floating (B, channels, *S)."""
    if buffer.dtype not in _DTYPES:
        raise TypeError(f"{name} must be float32, bfloat16, float16 or float64, got {buffer.dtype}")
    if buffer.dim() not in (3, 4, 5):
        raise ValueError(
            f"{name} must be (B, channels, *S) with 1 to 3 spatial dimensions, "
            f"got shape {tuple(buffer.shape)}"
        )


def check_like(name: str, tensor: Tensor, shape: Sequence[int], like: str, owner: Tensor) -> None:
    """Raise ValueError unless `tensor` has the shape given and lies on the device of `owner`."""
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(
            f"{name} must have shape {tuple(shape)} to match {like}, got {tuple(tensor.shape)}"
        )
    check_device(name, tensor, like, owner)


def check_device(name: str, tensor: Tensor, like: str, owner: Tensor) -> None:
    """Raise ValueError unless `tensor` lies on the device of `owner`, the argument `like`."""
    if tensor.device != owner.device:
        raise ValueError(
            f"{name} must be on the device of {like}, {owner.device}, got {tensor.device}"
        )


def check_draw(
    eps: Tensor | None,
    rng: Tensor,
    stream: int,
    floor: float,
    shape: Sequence[int],
    like: str,
    owner: Tensor,
) -> None:
    """Raise TypeError or ValueError unless the arguments of a draw of `shape` fit `owner`."""
    check_noise(rng, stream)
    check_device("rng", rng, like, owner)
    if not 0 <= floor < math.inf:  # math.isfinite breaks the graph where floor is traced
        raise ValueError(f"floor must be finite and >= 0, got {floor}")
    if eps is None:
        return
    if eps.dtype != owner.dtype:
        raise TypeError(f"eps must have the dtype of {like}, {owner.dtype}, got {eps.dtype}")
    check_like("eps", eps, shape, like, owner)
