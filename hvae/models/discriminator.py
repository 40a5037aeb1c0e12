"""A network that tells real images from made ones: the encoder's blocks and one logit.

No normalisation: statistics of a batch would tie its images to each other, fail at batch 1, and
have no second derivative that the penalties on its gradient could trust.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from hvae.errors import UserError
from hvae.models.config import ModelConfig
from hvae.models.encoder import Encoder
from hvae.models.layout import Layout
from hvae.nn.block import ACTIVATIONS
from hvae.nn.resample import average_pool
from hvae.section import Section

_LEAST_SIDE = 4  # levels are not halved below


class DiscriminatorConfig(Section):
    """Size of the discriminator; what is left out follows the model that is refined."""

    width: int | None = Field(default=None, ge=1)
    """Channels at the finest resolution. Null: those of the model."""

    taper: float = Field(default=1.5, ge=1.0, le=4.0)
    """Factor by which the channels grow each time the resolution halves."""

    blocks: int = Field(default=2, ge=1)
    """Residual blocks at each resolution."""

    scales: int = Field(default=1, ge=1, le=4)
    """Networks that look at the image and at copies of 1/2, 1/4 ... of its size; 2 or 3 from 128
    pixels on."""


class Discriminator(nn.Module):
    """Logits of images (N, C, *S), in one, two or three spatial dimensions; always in float32.

    Args:
        config: its size.
        model: the model whose images it judges, with `size` and `channels` set.

    Raises:
        UserError: the images are too small for so many scales.
    """

    def __init__(self, config: DiscriminatorConfig, model: ModelConfig) -> None:
        super().__init__()
        assert model.size is not None
        if any(side % 2 ** (config.scales - 1) for side in model.size):
            raise UserError(
                f"discriminator.scales: {config.scales} need sides that divide by "
                f"{2 ** (config.scales - 1)}, images are {model.size}"
            )
        self.scales = nn.ModuleList(
            _Scale(config, model, tuple(side // 2**scale for side in model.size))
            for scale in range(config.scales)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (N,), high for real images, of data in [-1, 1]."""
        return self.judge(x)[0]

    def judge(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns logits (N,), their mean over scales, and the feature maps they come from."""
        logits, features = [], []
        with torch.autocast(x.device.type, enabled=False):
            for level, scale in enumerate(self.scales):
                logit, maps = scale(average_pool(x, 2**level))
                logits.append(logit)
                features += maps
        return torch.stack(logits).mean(0), features


class _Scale(nn.Module):
    def __init__(
        self, config: DiscriminatorConfig, model: ModelConfig, size: Sequence[int]
    ) -> None:
        super().__init__()
        assert model.channels is not None
        patch = model.patch if all(side % model.patch == 0 for side in size) else 1
        sides = [side // patch for side in size]
        settings = ModelConfig(
            size=tuple(size),
            channels=model.channels,
            patch=patch,
            encoder=_halvings(sides, config.blocks),
            decoder=str(min(sides)),  # not built
            width=config.width or model.width,
            taper=config.taper,
            bottleneck=0.5,
            activation=model.activation,
        )
        layout = Layout.parse(settings)
        self.encoder = Encoder(settings, layout, model.channels)
        self.activation = ACTIVATIONS[settings.activation]
        coarsest = min(self.encoder.resolutions)
        inputs = self.encoder.widths[coarsest] * torch.Size(layout.shape_at(coarsest)).numel()
        self.logit = nn.Linear(inputs, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = self.encoder(x)
        coarse = self.activation(features[min(features)])
        return self.logit(coarse.flatten(1)).squeeze(1), list(features.values())


def _halvings(sides: Sequence[int], blocks: int) -> str:
    """An encoder layout that halves as long as all sides are even and large enough.

    >>> _halvings([16, 16], 2)
    '16x1,16d2,8x1,8d2,4x2'
    """
    tokens, sides = [], list(sides)
    while all(side % 2 == 0 and side // 2 >= _LEAST_SIDE for side in sides):
        finest = min(sides)
        tokens += [f"{finest}x{blocks - 1}"] if blocks > 1 else []
        tokens.append(f"{finest}d2")
        sides = [side // 2 for side in sides]
    return ",".join([*tokens, f"{min(sides)}x{blocks}"])
