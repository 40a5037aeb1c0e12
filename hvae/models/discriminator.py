"""A network that tells real images from made ones: an encoder, and a logit from all it computes.

It starts as a copy of the trained encoder, which knows these images already: on Fashion-MNIST such
a copy tells samples from images with an AUC of 0.87 after 75 steps, a fresh network of twice the
weights with 0.69.

No normalisation: statistics of a batch would tie its images to each other, fail at batch 1, and
have no second derivative that the penalties on its gradient could trust.
"""

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hvae.errors import UserError
from hvae.models.config import ModelConfig
from hvae.models.encoder import Encoder
from hvae.models.layout import Layout
from hvae.nn.block import ACTIVATIONS
from hvae.nn.conv import CONVS, conv, in_fp32
from hvae.nn.feature_maps import FeatureMaps
from hvae.nn.resample import average_pool, gaussian_blur
from hvae.section import Section

if TYPE_CHECKING:
    from hvae.models.hvae import HVAE

_LEAST_SIDE = 4  # levels of a fresh network are not halved below
_LARGEST_READ = 64  # positions of a map up to which the logit weighs each; means of larger ones
_MAPS = 3  # coarsest maps of another network that are judged: finer ones are edges, and cost most
_HEAD = 64  # channels of what judges one
_VARIANCE = {"relu": 2.0, "silu": 2.8, "gelu": 2.35}  # 1 / E f(u)^2 of a standard normal u


class DiscriminatorConfig(Section):
    """What the discriminator starts from, and its size."""

    start: Literal["encoder", "fresh"] = "encoder"
    """The model's encoder with its weights, or a network that knows nothing."""

    width: int | None = Field(default=None, ge=1)
    """Channels of a fresh network at the finest resolution. Null: those of the model."""

    taper: float = Field(default=1.5, ge=1.0, le=4.0)
    """Factor by which its channels grow each time the resolution halves."""

    blocks: int = Field(default=2, ge=1)
    """Residual blocks of it at each resolution."""

    features: str | None = None
    """A network of `hvae fid --features` whose maps it also judges by, frozen: lite0, lite2,
    inception. It knows shapes that few images do not teach; its own scores then flatter the
    result, so look through lite2 and score with another."""

    scales: int = Field(default=1, ge=1, le=4)
    """Networks that look at the image and, afresh, at copies of 1/2, 1/4 ... of its size; 2 or 3
    from 128 pixels on."""

    blur: float = Field(default=0.0, ge=0.0, le=16.0)
    """Standard deviation in pixels of a Gaussian that all images pass before they are judged. About
    2 makes a model whose samples are no shapes yet mend shapes, not contrast and grain; 0.7 keeps a
    refiner from a grid of 2 pixels, where the model folds as many."""


class Discriminator(nn.Module):
    """Logits of images (N, C, *S), in one, two or three spatial dimensions.

    Convolutions run in bfloat16 where the caller's autocast says so; logits are float32 always.

    Args:
        config: what it starts from, and its size.
        model: the trained model whose images it judges; it shares no weight with it.
        maps: of the network that `config.features` names.

    Raises:
        UserError: the images are too small for so many scales.
    """

    def __init__(
        self, config: DiscriminatorConfig, model: "HVAE", maps: FeatureMaps | None = None
    ) -> None:
        super().__init__()
        size = model.shape[1:]
        if any(side % 2 ** (config.scales - 1) for side in size):
            raise UserError(
                f"discriminator.scales: {config.scales} need sides that divide by "
                f"{2 ** (config.scales - 1)}, images are {size}"
            )
        self.blur = config.blur
        self.scales = nn.ModuleList()
        for level in range(config.scales):
            if level == 0 and config.start == "encoder":
                encoder, settings = _copied(model.encoder), model.config
            else:
                encoder, settings = _fresh(config, model.config, [s // 2**level for s in size])
            self.scales.append(_Scale(encoder, Layout.parse(settings), settings))
        self.network_input = model.likelihood.network_input
        self.through = None if maps is None else _Through(maps, model.config)

    def look(self, x: Tensor) -> list[Tensor]:
        """Returns the maps of the frozen network that `judge` takes; none without one.

        They are a fixed function of images in [-1, 1]: what bounds the discriminator need not be
        differentiated through it.
        """
        if self.through is None:
            return []
        with _full_precision(x):
            x = gaussian_blur(x, self.blur)
        return self.through.look(x)

    def forward(self, x: Tensor, looked: list[Tensor] | None = None) -> Tensor:
        """Returns logits (N,), high for real images, of data in [-1, 1]."""
        return self.judge(x, looked)[0]

    def judge(self, x: Tensor, looked: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Returns logits (N,), their mean over scales, and the feature maps they come from.

        Args:
            x: (N, C, *S) in [-1, 1].
            looked: `look` of it, where it is known already.
        """
        logits, features = [], []
        with _full_precision(x):
            scaled = self.network_input(127.5 * (gaussian_blur(x, self.blur) + 1))
            pooled = [average_pool(scaled, 2**level) for level in range(len(self.scales))]
        for scale, seen in zip(self.scales, pooled, strict=True):
            logit, maps = scale(seen)
            logits.append(logit)
            features += maps
        if self.through is not None:
            logits.append(self.through(self.look(x) if looked is None else looked))
        return torch.stack(logits).mean(0), features


class _Scale(nn.Module):
    """The sum of a linear logit at each resolution of an encoder."""

    def __init__(self, encoder: Encoder, layout: Layout, settings: ModelConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.activation = ACTIVATIONS[settings.activation]
        resolutions = {encoder.finest, *encoder.widths}
        self.whole = {r for r in resolutions if math.prod(layout.shape_at(r)) <= _LARGEST_READ}
        self.logits = nn.ModuleDict()
        for r in sorted(resolutions):
            positions = math.prod(layout.shape_at(r)) if r in self.whole else 1
            self.logits[str(r)] = nn.Linear(settings.width_at(r) * positions, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = self.encoder(x)
        total = x.new_zeros(len(x))
        with _full_precision(x):
            features = {r: maps.to(x.dtype) for r, maps in features.items()}
            for r, maps in features.items():
                seen = self.activation(maps).flatten(2)
                seen = seen.flatten(1) if r in self.whole else seen.mean(2)
                total = total + self.logits[str(r)](seen).squeeze(1)
        return total, list(features.values())


class _Through(nn.Module):
    """The sum of a logit for each of a frozen network's maps, by a small network of its own.

    As in projected GANs (Sauer et al., arXiv 2111.01007), less their random mixing of channels and
    scales: the maps of a network that knows natural images tell shapes apart at once.
    """

    def __init__(self, maps: FeatureMaps, settings: ModelConfig) -> None:
        super().__init__()
        self.maps = maps
        self.heads = nn.ModuleList(_Head(channels, settings) for channels in maps.channels[-_MAPS:])

    def look(self, x: Tensor) -> list[Tensor]:
        """Returns the maps that are judged, of images in [-1, 1]."""
        return self.maps(x)[-_MAPS:]

    def forward(self, looked: list[Tensor]) -> Tensor:
        """Returns logits (N,) of maps."""
        logits = [head(maps) for head, maps in zip(self.heads, looked, strict=True)]
        return torch.stack(logits).sum(0)


class _Head(nn.Module):
    """The logit of a map, the mean over its places."""

    def __init__(self, channels: int, settings: ModelConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[settings.activation]
        self.into = conv(2, channels, _HEAD)
        self.across = conv(2, _HEAD, _HEAD, kernel=3)
        self.out = conv(2, _HEAD, 1)
        _keep_size(self, settings)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.across(self.activation(self.into(x))))
        return in_fp32(self.out, x).mean((1, 2, 3))


def _full_precision(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def _copied(encoder: Encoder) -> Encoder:
    found = copy.deepcopy(encoder).requires_grad_(True)
    found.levels = {}  # recomputation would run the ops of a penalty three times
    return found


@torch.no_grad()
def _fresh(
    config: DiscriminatorConfig, model: ModelConfig, size: Sequence[int]
) -> tuple[Encoder, ModelConfig]:
    """Returns an encoder that halves its input to about 4 positions a side, and its settings.

    Its weights keep the size of what passes through them; torch's default ones shrink it by a third
    and more each, until the network is a linear one for hundreds of steps.
    """
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
    encoder = Encoder(settings, Layout.parse(settings), model.channels)
    _keep_size(encoder, model)
    return encoder, settings


@torch.no_grad()
def _keep_size(network: nn.Module, settings: ModelConfig) -> None:
    """Scales torch's default weights so that what passes through them keeps its size."""
    for module in network.modules():
        if isinstance(module, CONVS):
            module.weight.mul_((3 * _VARIANCE[settings.activation]) ** 0.5)


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
