"""The bottleneck that every block of both ladders is made of."""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hvae.nn import regional
from hvae.nn.conv import conv, conv_over_parts, in_fp32

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}


class Bottleneck(nn.Module):
    """1x1, kxk, kxk, 1x1 convolutions, each after a non-linearity; no normalisation.

    VDVAE (arXiv 2011.10650) figure 3. The caller adds the residual.

    name        default  meaning
    ndim                 spatial dimensions, 1 to 3
    channels             channels in, inner, out
    kernel      3        side of the two inner convolutions; 1 where maps are too small for 3
    activation  "silu"   "relu", or "gelu" (exact)
    fp32_tail   False    last convolution in float32 under autocast, for distribution parameters
    """

    def __init__(
        self,
        ndim: int,
        channels: tuple[int, int, int],
        *,
        kernel: int = 3,
        activation: str = "silu",
        fp32_tail: bool = False,
    ) -> None:
        super().__init__()
        outside, inside, out = channels
        self.activation = ACTIVATIONS[activation]
        self.c1 = conv(ndim, outside, inside)
        self.c2 = conv(ndim, inside, inside, kernel)
        self.c3 = conv(ndim, inside, inside, kernel)
        self.c4 = conv(ndim, inside, out)
        self.fp32_tail = fp32_tail
        self.call: regional.Call = regional.call  # in training; see `hvae.nn.regional`

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, out, *S) from (N, in, *S)."""
        return self.from_activated(self.activation(x))

    def from_activated(self, *parts: Tensor) -> Tensor:
        """Returns (N, out, *S) from an input that went through `activation` already.

        Several parts stand for their concatenation along channels, which is never formed: the
        first convolution runs over each and the results are added. Blocks that read the same maps
        share one activation of them, which on a CPU costs as much as a convolution.
        """
        call = self.call if torch.is_grad_enabled() else regional.call
        return cast(Tensor, call(self._convolve, *parts))

    def _convolve(self, *parts: Tensor) -> Tensor:
        x: Tensor = self.c1(parts[0]) if len(parts) == 1 else conv_over_parts(self.c1, parts)
        x = self.c2(self.activation(x))
        x = self.c3(self.activation(x))
        x = self.activation(x)
        return in_fp32(self.c4, x) if self.fp32_tail else cast(Tensor, self.c4(x))

    @torch.no_grad()
    def scale_tail(self, factor: float) -> None:
        """Multiplies the weights of the last convolution."""
        self.c4.weight.mul_(factor)
