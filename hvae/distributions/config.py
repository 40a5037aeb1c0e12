"""The `model.likelihood:` section."""

from typing import Literal

from pydantic import Field

from hvae.section import Section


class LikelihoodConfig(Section):
    """Distribution of the data given the decoder's last state."""

    kind: Literal["logistic_mixture"] = "logistic_mixture"
    """Literal name of the distribution."""

    mixtures: int = Field(default=10, ge=1)
    """Components of the mixture."""

    bits: int = Field(default=8, ge=1, le=8)
    """Bit depth that is modelled; the lowest 8 - bits bits of the data are dropped."""

    form: Literal["exact", "compat"] = "exact"
    """Exact: masses of the levels sum to 1. Compat: the published VDVAE's formula, which at fewer
    than 8 bits is no likelihood; for parity and for comparison with published figures only."""

    input_mean: float = 127.5
    """Subtracted from the pixels, 0..255, before they enter the encoder."""

    input_std: float = Field(default=127.5, gt=0.0)
    """What they are then divided by. Neither touches what is modelled."""
