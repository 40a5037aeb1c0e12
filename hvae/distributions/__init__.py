"""Likelihoods: objects without parameters that own the scaling of the data and its density."""

from hvae.distributions.base import Distribution, Likelihood
from hvae.distributions.bernoulli import Bernoulli
from hvae.distributions.categorical import Categorical
from hvae.distributions.config import LikelihoodConfig
from hvae.distributions.discretized import DiscretizedGaussian, DiscretizedLogistic
from hvae.distributions.gaussian_images import Gaussian
from hvae.distributions.logistic_mixture import LogisticMixture
from hvae.distributions.pixels import PixelLikelihood

__all__ = [
    "Bernoulli",
    "Categorical",
    "DiscretizedGaussian",
    "DiscretizedLogistic",
    "Distribution",
    "Gaussian",
    "Likelihood",
    "LikelihoodConfig",
    "LogisticMixture",
    "make_likelihood",
]

_FAMILIES: dict[str, type[PixelLikelihood]] = {
    family.kind: family
    for family in (
        Bernoulli,
        Categorical,
        DiscretizedGaussian,
        DiscretizedLogistic,
        Gaussian,
        LogisticMixture,
    )
}


def make_likelihood(config: LikelihoodConfig, channels: int) -> Likelihood:
    """Returns the likelihood a configuration names, for data of `channels` channels.

    Raises:
        UserError: if that likelihood cannot model so many channels.
    """
    return _FAMILIES[config.kind](channels, **config.model_dump(exclude={"kind"}))
