"""Likelihoods: objects without parameters that own the scaling of the data and its density."""

from hvae.distributions.base import Distribution, Likelihood
from hvae.distributions.config import LikelihoodConfig
from hvae.distributions.logistic_mixture import LogisticMixture

__all__ = ["Distribution", "Likelihood", "LikelihoodConfig", "LogisticMixture", "make_likelihood"]


def make_likelihood(config: LikelihoodConfig, channels: int) -> Likelihood:
    """Returns the likelihood a configuration names, for data of `channels` channels.

    Raises:
        UserError: if that likelihood cannot model so many channels.
    """
    return LogisticMixture(
        channels,
        mixtures=config.mixtures,
        bits=config.bits,
        form=config.form,
        input_mean=config.input_mean,
        input_std=config.input_std,
    )
