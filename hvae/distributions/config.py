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

    form: Literal["exact"] = "exact"
    """Exact: masses of the levels sum to 1 and no threshold is needed."""
