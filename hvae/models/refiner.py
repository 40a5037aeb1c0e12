"""Corrections that sharpen the images of a frozen model and leave its likelihood as it is.

    injectors        before each group of the prior path: h <- h + A_l(h). They act inside the
                     ladder, where samples go wrong: a draw's mistakes at coarse levels cannot be
                     mended at the output. Reconstructions never meet them.
    output refiner   on both paths, from the states h_r of the ladder:
                         a_r   = Adapter_r(h_r, up(a_r'))       r' the next coarser resolution
                         x~    = clip(mu + s tanh(Delta / s))   Delta from a_R and mu

mu is the mean of the likelihood, data in [-1, 1]. The last layers start at zero, so that an image
is the unrefined one exactly until training moves them.
"""

from collections.abc import Callable, Mapping
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from hvae.errors import UserError
from hvae.models.config import ModelConfig
from hvae.models.layout import Layout
from hvae.nn.block import ACTIVATIONS
from hvae.nn.conv import conv, zero_conv
from hvae.nn.resample import upsample
from hvae.section import Section

_SMALL = 4  # maps up to this side are corrected by 1x1 convolutions
_HALF_RANGE = 127.5


class RefinerConfig(Section):
    """Which corrections there are, and their size."""

    injectors: bool = True
    """Correct the states of the prior path."""

    output: bool = False
    """Correct the image, of samples and of reconstructions."""

    finest: int | None = Field(default=None, ge=1)
    """States are corrected up to this resolution. Null: at all."""

    injector_width: float = Field(default=0.25, gt=0.0, le=1.0)
    """Inner channels of an injector as a fraction of its state's."""

    width: float = Field(default=0.5, gt=0.0, le=1.0)
    """Channels of an adapter as a fraction of its state's."""

    coarsest: int = Field(default=4, ge=1)
    """The output is corrected from states of this resolution on."""

    bound: float = Field(default=0.5, gt=0.0, le=2.0)
    """Largest correction of a value, where data reaches from -1 to 1."""


class Refiner(nn.Module):
    """The corrections of one model.

    Args:
        config: which ones.
        model: the model's configuration, with `size` and `channels` set.

    Raises:
        UserError: nothing is to be corrected.
    """

    def __init__(self, config: RefinerConfig, model: ModelConfig) -> None:
        super().__init__()
        if not (config.injectors or config.output):
            raise UserError("refiner: injectors and output are both off; nothing would be refined")
        layout = Layout.parse(model)
        self.config = config
        finest = config.finest or layout.finest
        self.injectors = nn.ModuleDict(
            {
                str(group): Injector(model, layout, spec.resolution, config.injector_width)
                for group, spec in enumerate(layout.decoder)
                if config.injectors and spec.resolution <= finest
            }
        )
        self.output = OutputRefiner(config, model, layout) if config.output else None

    def injector(self, group: int) -> "Injector | None":
        """Returns what is added to the state before a group of the prior path."""
        key = str(group)
        return cast(Injector, self.injectors[key]) if key in self.injectors else None

    def image(self, mean: Tensor, states: Mapping[int, Tensor]) -> Tensor:
        """Returns refined images in image units 0..255, (N, C, *S), not rounded.

        Clipping passes gradients on as if it were not there: a value at the border could not come
        back otherwise.

        Args:
            mean: of the likelihood, in image units, (N, C, *S).
            states: the ladder's last state at each resolution.
        """
        if self.output is not None:
            mean = mean + _HALF_RANGE * self.output(mean / _HALF_RANGE - 1, states)
        return mean + (mean.clamp(0, 255) - mean).detach()


class Injector(nn.Module):
    """A small bottleneck on a state (N, width, *S), which starts at zero."""

    def __init__(self, model: ModelConfig, layout: Layout, resolution: int, share: float) -> None:
        super().__init__()
        ndim = len(layout.finest_shape)
        width = model.width_at(resolution)
        inside = max(1, round(width * share))
        self.activation = ACTIVATIONS[model.activation]
        self.into = conv(ndim, width, inside)
        self.across = conv(ndim, inside, inside, kernel=3 if resolution > _SMALL else 1)
        self.out = zero_conv(ndim, inside, width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the correction, (N, width, *S)."""
        x = self.into(self.activation(x))
        x = self.across(self.activation(x))
        return cast(Tensor, self.out(self.activation(x)))


class OutputRefiner(nn.Module):
    """From the states of the ladder to a bounded correction of the image."""

    def __init__(self, config: RefinerConfig, model: ModelConfig, layout: Layout) -> None:
        super().__init__()
        assert model.channels is not None
        ndim = len(layout.finest_shape)
        levels = sorted({spec.resolution for spec in layout.decoder})
        self.resolutions = [r for r in levels if r >= config.coarsest] or levels[-1:]
        self.size, self.bound = layout.finest_shape, config.bound
        self.activation = ACTIVATIONS[model.activation]
        self.patch = model.patch
        self.adapters = nn.ModuleDict()
        coarser = 0
        for resolution in self.resolutions:
            width = max(1, round(model.width_at(resolution) * config.width))
            inputs = model.width_at(resolution) + coarser
            self.adapters[str(resolution)] = _Adapter(ndim, inputs, width, self.activation)
            coarser = width
        self.last = conv(ndim, coarser + model.channels, coarser, kernel=3, border="replicate")
        self.out = zero_conv(ndim, coarser, model.channels)

    def forward(self, mean: Tensor, states: Mapping[int, Tensor]) -> Tensor:
        """Returns s tanh(Delta / s), (N, C, *S), from the mean in [-1, 1] and states."""
        adapted: Tensor | None = None
        for resolution in self.resolutions:
            state = states[resolution]
            parts = [state]
            if adapted is not None:
                parts.append(upsample(adapted, tuple(state.shape[2:])))
            adapted = self.adapters[str(resolution)](torch.cat(parts, 1))
        assert adapted is not None
        # Nearest neighbours and a convolution: shuffled pixels would leave a checker pattern.
        fine = upsample(adapted, tuple(mean.shape[2:]))
        x = self.last(torch.cat([fine, mean], 1))
        delta = self.out(self.activation(x))
        return self.bound * torch.tanh(delta / self.bound)


class _Adapter(nn.Module):
    """1x1, 3x3 and 1x1 convolutions of a state and what comes from the coarser ones.

    The border is repeated: zeros would leave marks in corners.
    """

    def __init__(
        self, ndim: int, inputs: int, width: int, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.activation = activation
        self.into = conv(ndim, inputs, width)
        self.across = conv(ndim, width, width, kernel=3, border="replicate")
        self.out = conv(ndim, width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(self.activation(x))
        x = self.across(self.activation(x))
        return cast(Tensor, self.out(self.activation(x)))
