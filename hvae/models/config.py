"""The `model:` section: what the ladder looks like, what it is told, and the two presets of it."""

import math
import sys
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from hvae.distributions.config import LikelihoodConfig
from hvae.section import Section

Preset = Literal["hvae", "vdvae"]

# A preset only supplies values for keys the user left out; no code asks for its name.
PRESETS: dict[str, dict[str, Any]] = {
    "hvae": {"std": "softplus", "std_floor": 1e-3, "activation": "silu"},
    "vdvae": {"std": "log", "std_floor": 0.0, "activation": "gelu"},
}


class ConditionConfig(Section):
    """What the model is told about an example; see `hvae.models.condition`."""

    kind: Literal["none", "class", "vector", "image"] = "none"
    """None: nothing. Class: one of a set of names. Vector: numbers. Image: maps of the data's size
    or smaller, such as a low-resolution copy or what a mask leaves."""

    source: Literal["data", "downsample", "mask"] = "data"
    """Where an image condition comes from. Data: stored beside the images. Downsample: the image at
    1 / factor of its size. Mask: the image with a random box blanked, and the mask."""

    factor: int = Field(default=4, ge=2)
    """How many times smaller the condition of `source: downsample` is, along every axis."""

    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Chance that an example of a training step is shown without its condition, so that one model
    is conditional and unconditional. 0: conditional only, and without guidance."""

    width: int = Field(default=64, ge=1)
    """Channels of the embedding that every block reads."""

    classes: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Names of the classes in the order of their labels. Null: those of the data."""

    shape: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Shape of a vector, (numbers,), or of an image, (channels, height, width). Null: that of the
    data."""

    @model_validator(mode="after")
    def _source_fits_kind(self) -> Self:
        if self.source != "data" and self.kind != "image":
            raise ValueError(f"source: {self.source} goes with kind: image, got kind: {self.kind}")
        return self


class ModelConfig(Section):
    """Architecture of one hierarchical VAE; see `hvae.models.layout` for the layout strings."""

    preset: Preset = "hvae"
    """Settings for the keys left out: this project's own, or the published VDVAE's."""

    size: tuple[int, ...] | None = Field(default=None, min_length=1, max_length=3)
    """Data size: (height, width), (length,) or (depth, height, width). Null: data.size."""

    channels: int | None = Field(default=None, ge=1)
    """Channels of the data. Null: data.channels."""

    encoder: str
    """Bottom-up layout, fine to coarse, such as `32x11,32d2,16x6,16d2,8x6`."""

    decoder: str
    """Top-down layout, coarse to fine, such as `1x1,4m1,4x2,8m4,8x5`."""

    patch: int = Field(default=1, ge=1)
    """Side of the patches that the stem folds into channels; the layout starts at size / patch."""

    width: int = Field(default=64, ge=1)
    """Channels of the residual stream, at every resolution not named in `widths`."""

    widths: dict[int, int] = Field(default_factory=dict)
    """Channels of the residual stream by resolution; the finest resolution always has `width`."""

    taper: float = Field(default=1.0, ge=1.0, le=4.0)
    """Factor by which the channels grow each time the resolution halves, in multiples of 8; not at
    resolutions named in `widths`."""

    max_width: int | None = Field(default=None, ge=1)
    """Most channels that `taper` leads to. Null: no limit."""

    z_channels: int = Field(default=16, ge=1)
    """Latent channels of each group."""

    bottleneck: float = Field(default=0.25, gt=0.0, le=4.0)
    """Inner channels of a block as a fraction of its resolution's width."""

    activation: Literal["gelu", "relu", "silu"] = "silu"
    """Non-linearity before each convolution of a block."""

    attention: tuple[int, ...] = ()
    """Resolutions whose blocks, on the way up and down, end in self-attention."""

    heads: int = Field(default=4, ge=1)
    """Heads of each self-attention; a divisor of the channels at its resolutions."""

    init: Literal["scaled", "zero_tail", "lecun"] = "scaled"
    """Initial weights. Scaled: torch's, residual tails times 1 / sqrt(blocks), as VDVAE. Zero_tail:
    residual branches start at zero. Lecun: as scaled, all weights at variance 1 / fan-in."""

    posterior: Literal["free", "residual"] = "free"
    """Free: mean and std of the posterior are outputs. Residual: outputs are its distance from the
    prior, mean_p + delta and std_p x delta, as NVAE."""

    top_prior: Literal["state", "learned"] = "state"
    """Where the first group's prior comes from: a network on the starting state, or parameters."""

    std: Literal["softplus", "log"] = "softplus"
    """How a raw output s becomes a standard deviation: std_floor + log2(1 + 2^s), or exp(s)."""

    std_floor: float = Field(default=1e-3, ge=0.0)
    """Added to every softplus standard deviation: its gradient never dies. Unused by log."""

    std_max: float | None = Field(default=None, gt=0.0)
    """Smooth upper bound on every standard deviation. Null: none."""

    no_bias_above: int = Field(default=64, ge=0)
    """Resolutions up to this one start from a learned map; finer ones from zeros."""

    likelihood: LikelihoodConfig = LikelihoodConfig()
    """Distribution of the data given the last state of the decoder."""

    condition: ConditionConfig = ConditionConfig()
    """What the model is told about an example."""

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {**PRESETS.get(values.get("preset", "hvae"), {}), **values}

    @field_validator("widths", mode="before")
    @classmethod
    def _integer_keys(cls, widths: Any) -> Any:
        """JSON and `model.widths.8=64` know string keys only."""
        if not isinstance(widths, dict):
            return widths
        return {int(k) if isinstance(k, str) and k.isdigit() else k: v for k, v in widths.items()}

    @model_validator(mode="after")
    def _bound_above_floor(self) -> Self:
        if self.std_max is not None and self.std_max <= self.std_floor:
            raise ValueError(
                f"std_max must exceed std_floor, got {self.std_max} and {self.std_floor}"
            )
        return self

    def width_at(self, resolution: int) -> int:
        """Returns the channels of the residual stream at a layout resolution."""
        if resolution in self.widths:
            return self.widths[resolution]
        finest = min(self.size) // self.patch if self.size else resolution
        if self.taper == 1.0 or resolution >= finest:
            return self.width
        grown: float = self.width * self.taper ** math.log2(finest / resolution)
        return max(self.width, min(8 * round(grown / 8), self.max_width or sys.maxsize))
