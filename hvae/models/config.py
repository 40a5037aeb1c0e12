"""The `model:` section: what the ladder looks like, and the two presets of it."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hvae.distributions.config import LikelihoodConfig
from hvae.section import Section

Preset = Literal["hvae", "vdvae"]

# A preset only supplies values for keys the user left out; no code asks for its name.
PRESETS: dict[str, dict[str, Any]] = {
    "hvae": {"std": "softplus", "std_floor": 1e-3, "activation": "silu"},
    "vdvae": {"std": "log", "std_floor": 0.0, "activation": "gelu"},
}


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

    z_channels: int = Field(default=16, ge=1)
    """Latent channels of each group."""

    bottleneck: float = Field(default=0.25, gt=0.0, le=4.0)
    """Inner channels of a block as a fraction of its resolution's width."""

    activation: Literal["gelu", "relu", "silu"] = "silu"
    """Non-linearity before each convolution of a block."""

    std: Literal["softplus", "log"] = "softplus"
    """How a raw output s becomes a standard deviation: std_floor + log2(1 + 2^s), or exp(s)."""

    std_floor: float = Field(default=1e-3, ge=0.0)
    """Added to every softplus standard deviation: its gradient never dies. Unused by log."""

    no_bias_above: int = Field(default=64, ge=0)
    """Resolutions up to this one start from a learned map; finer ones from zeros."""

    likelihood: LikelihoodConfig = LikelihoodConfig()
    """Distribution of the data given the last state of the decoder."""

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

    def width_at(self, resolution: int) -> int:
        """Returns the channels of the residual stream at a layout resolution."""
        return self.widths.get(resolution, self.width)
