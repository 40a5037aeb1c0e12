"""Self-attention over the positions of a map, for levels where a kernel sees too little of it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hvae.nn.conv import conv


class SelfAttention(nn.Module):
    """Multi-head attention of every position to every other; the caller adds the residual.

    Vaswani et al. (arXiv 1706.03762) without normalisation layers: queries and keys have unit
    length instead, times a learned factor per head (Henry et al., arXiv 2010.04245), so that logits
    stay bounded in a ladder that has no norms. The last convolution starts at zero. Positions are
    told apart by what the convolutions around it and the learned starting maps leave in the state.

    name      default  meaning
    ndim               spatial dimensions, 1 to 3
    channels           channels in and out
    heads              divisor of `channels`
    """

    def __init__(self, ndim: int, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"heads must divide the {channels} channels, got {heads}")
        self.heads = heads
        self.in_conv = conv(ndim, channels, 3 * channels)
        self.out_conv = conv(ndim, channels, channels)
        nn.init.zeros_(self.out_conv.weight)
        self.scale = nn.Parameter(torch.full((heads, 1, 1), (channels / heads) ** 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, C, *S) from (N, C, *S)."""
        # (N, 3C, *S) -> three of (N, heads, positions, C / heads)
        parts = self.in_conv(x).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(3, 4)
        query, key, value = parts.unbind(1)
        query = (F.normalize(query, dim=-1) * self.scale).to(value.dtype)
        key = F.normalize(key, dim=-1).to(value.dtype)
        seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        result: Tensor = self.out_conv(seen.transpose(2, 3).flatten(1, 2).unflatten(2, x.shape[2:]))
        return result
