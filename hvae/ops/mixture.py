"""Components of logistic mixtures over channels: how channels are coupled, picked and averaged.

Shapes: N batch, C channels, M mixtures, *S one to three spatial dimensions.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hvae.ops.philox import philox_uniform


class MixtureParameters(NamedTuple):
    """Raw parameters of each pixel's components; (N, C, M, *S) unless said otherwise."""

    logits: Tensor  # (N, M, *S)
    means: Tensor
    log_scales: Tensor  # before the floor
    coefficients: Tensor  # before tanh, (N, C (C - 1) / 2, M, *S); (N, 0, M, *S) without coupling


class PickedComponents(NamedTuple):
    """One component per pixel, and the noise to draw from it; (N, C, *S) unless said otherwise."""

    means: Tensor
    log_scales: Tensor  # before the floor
    coefficients: Tensor  # after tanh, (N, C (C - 1) / 2, *S), or (N, 0, *S) without coupling
    uniform: Tensor  # (N, C, *S) in (0, 1)


def num_coefficients(channels: int) -> int:
    """Returns how many pairs of channels there are: the coefficients of a coupled component."""
    return channels * (channels - 1) // 2


def coupled_mean(
    means: Tensor, coefficients: Tensor, earlier: list[Tensor], channel: int
) -> Tensor:
    """Returns the means of one channel given the values of the earlier ones.

    Args:
        means: (N, C, ...).
        coefficients: after tanh, (N, C (C - 1) / 2, ...): those of channel 1 first, and in each by
            the earlier channel; (N, 0, ...) without coupling.
        earlier: a value per earlier channel, broadcast over `means[:, channel]`.
        channel: which.
    """
    mean = means[:, channel]
    if coefficients.shape[1]:
        first = num_coefficients(channel)
        for source in range(channel):
            mean = mean + coefficients[:, first + source] * earlier[source]
    return mean


def pick_components(p: MixtureParameters, rng: Tensor, stream: int) -> PickedComponents:
    """Returns a component per pixel, by inverse CDF.

    A pixel has ceil((1 + C) / 4) Philox blocks: word 0 picks, the next C are for the channels.
    """
    batch, channels, _, *space = p.means.shape
    words = 4 * ((4 + channels) // 4)
    uniform = philox_uniform(rng, stream, math.prod(space) * words // 4, batch, p.means.dtype)
    uniform = uniform.reshape(batch, *space, words).movedim(-1, 1)
    # The last component also takes what rounding leaves of the unit interval.
    cdf = p.logits.softmax(1).cumsum(1)[:, :-1]
    pick = (uniform[:, :1] > cdf).sum(1, keepdim=True).unsqueeze(1)

    def picked(per_component: Tensor) -> Tensor:  # (N, n, M, *S) -> (N, n, *S)
        # Not take_along_dim, which torch 2.13 cannot trace with symbolic shapes.
        index = pick.expand(-1, per_component.shape[1], *[-1] * (pick.ndim - 2))
        return per_component.gather(2, index).squeeze(2)

    return PickedComponents(
        means=picked(p.means),
        log_scales=picked(p.log_scales),
        coefficients=picked(p.coefficients).tanh(),
        uniform=uniform[:, 1 : 1 + channels],
    )


def mixture_mean(p: MixtureParameters) -> Tensor:
    """Returns the mean in [-1, 1], (N, C, *S); differentiable.

    Channels are chained within each component, then averaged: averaging channel by channel is
    wrong. What the end levels collect from the tails is ignored, but for a final clamp.
    """
    coefficients = p.coefficients.tanh()
    chained: list[Tensor] = []
    for channel in range(p.means.shape[1]):
        chained.append(coupled_mean(p.means, coefficients, chained, channel))
    weights = p.logits.softmax(1).unsqueeze(1)
    mean: Tensor = (weights * torch.stack(chained, 1)).sum(2).clamp(-1, 1)
    return mean
