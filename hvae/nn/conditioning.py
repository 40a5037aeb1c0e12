"""What a condition is turned into before it meets the ladder: maps of a fixed number of channels.

Classes and vectors become one map of a single position, which broadcasts over any level; images
become a map of each level's own shape.
"""

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from hvae.nn.block import ACTIVATIONS, Bottleneck
from hvae.nn.conv import conv
from hvae.nn.resample import patchify, upsample


class ClassEmbedding(nn.Module):
    """A learned vector per class.

    name     default  meaning
    ndim              spatial dimensions, 1 to 3
    classes           how many
    width             channels out
    """

    def __init__(self, ndim: int, classes: int, width: int) -> None:
        super().__init__()
        self.ndim = ndim
        self.table = nn.Embedding(classes, width)

    def forward(self, labels: Tensor) -> Tensor:
        """Returns (N, width, 1...) from labels (N,); a negative label gives class 0's."""
        embedded: Tensor = self.table(labels.clamp(min=0))
        return embedded.view(*embedded.shape, *[1] * self.ndim)


class VectorEmbedding(nn.Module):
    """Two linear layers.

    name        default  meaning
    ndim                 spatial dimensions, 1 to 3
    length               numbers of a vector
    width                channels out
    activation           between the layers
    """

    def __init__(self, ndim: int, length: int, width: int, activation: str) -> None:
        super().__init__()
        self.ndim, self.activation = ndim, ACTIVATIONS[activation]
        self.first = nn.Linear(length, width)
        self.second = nn.Linear(width, width)

    def forward(self, vectors: Tensor) -> Tensor:
        """Returns (N, width, 1...) from (N, length)."""
        embedded: Tensor = self.second(self.activation(self.first(vectors)))
        return embedded.view(*embedded.shape, *[1] * self.ndim)


class ImagePyramid(nn.Module):
    """Features of an image at every level; one residual block per level, fine to coarse.

    Levels finer than the image repeat its features.

    name        default  meaning
    channels             of the image
    fold                 side of the patches that are folded into channels first
    base                 spatial shape of the folded image
    levels               spatial shape of the maps wanted, by resolution
    width                channels out
    activation           of the blocks
    """

    def __init__(
        self,
        channels: int,
        fold: int,
        base: tuple[int, ...],
        levels: Mapping[int, tuple[int, ...]],
        width: int,
        activation: str,
    ) -> None:
        super().__init__()
        ndim = len(base)

        def block(shape: tuple[int, ...]) -> Bottleneck:
            kernel = 3 if min(shape) > 2 else 1
            return Bottleneck(ndim, (width, width, width), kernel=kernel, activation=activation)

        self.fold = fold
        self.levels = dict(sorted(levels.items(), reverse=True))
        self.in_conv = conv(ndim, channels * fold**ndim, width, kernel=3)
        self.stem = block(base)
        coarser = [r for r, shape in self.levels.items() if math.prod(shape) < math.prod(base)]
        self.blocks = nn.ModuleDict({str(r): block(levels[r]) for r in coarser})

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """Returns (N, width, *level) by resolution from (N, channels, *S), scaled to about 1."""
        h = self.in_conv(patchify(image, self.fold))
        h = h + self.stem(h)
        maps = {}
        for resolution, shape in self.levels.items():
            if str(resolution) in self.blocks:
                h = F.interpolate(h, size=shape, mode="area")
                h = h + self.blocks[str(resolution)](h)
                maps[resolution] = h
            else:
                maps[resolution] = upsample(h, shape)
        return maps
