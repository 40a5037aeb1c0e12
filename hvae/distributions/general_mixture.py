"""The discretised logistic mixture for any number of channels, coupled or not, in PyTorch.

`hvae.ops.logistic_mixture_nll` is fused for one channel and for three coupled ones; this is the
same distribution for all others. Per pixel, with M components,

    P(k) = sum_m pi_m prod_c P(k_c; mu_cm, s_cm),
    mu_cm = mean_cm + sum_(b < c) tanh(coef_bcm) t_b.

Without coupling the coefficients are left out; channels still share the component of their pixel.
Channels of the parameters: M logits; C x M means; C x M raw log-scales; and, when coupled,
C (C - 1) / 2 x M raw coefficients, those of channel 1 first and in each by the earlier channel.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hvae.distributions.levels import nearest_level, position
from hvae.distributions.log_mass import LOG_SCALE_CEILING, logistic_log_mass
from hvae.ops.logistic_mixture import LOG_SCALE_FLOOR
from hvae.ops.philox import philox_uniform


class MixtureParameters(NamedTuple):
    """Parameters of each pixel's components; (N, C, M, *S) unless said otherwise."""

    logits: Tensor  # (N, M, *S)
    means: Tensor
    log_scales: Tensor  # bounded
    coefficients: Tensor  # after tanh, (N, C (C - 1) / 2, M, *S), or (N, 0, M, *S) without coupling


def num_coefficients(channels: int, coupled: bool) -> int:
    """Returns the coefficients of one component."""
    return channels * (channels - 1) // 2 if coupled else 0


def split(params: Tensor, channels: int, coupled: bool) -> MixtureParameters:
    """Returns head outputs (N, P, *S) by their meaning."""
    coefficients = num_coefficients(channels, coupled)
    slots = params.unflatten(1, (1 + 2 * channels + coefficients, -1))
    logits, means, raw, coupling = slots.split([1, channels, channels, coefficients], 1)
    log_scales = raw.clamp(LOG_SCALE_FLOOR, LOG_SCALE_CEILING)
    return MixtureParameters(logits.squeeze(1), means, log_scales, coupling.tanh())


def coupled_centre(
    means: Tensor, coefficients: Tensor, earlier: list[Tensor], channel: int
) -> Tensor:
    """Returns the locations of one channel given the values of the earlier ones."""
    centre = means[:, channel]
    if coefficients.shape[1]:
        first = num_coefficients(channel, coupled=True)
        for source, value in enumerate(earlier):
            centre = centre + coefficients[:, first + source] * value
    return centre


def mixture_log_prob(p: MixtureParameters, levels: Tensor, bits: int) -> Tensor:
    """Returns the log-probability of each pixel's levels (N, C, *S), nats, (N, *S)."""
    targets = list(position(levels, bits, p.means.dtype).unsqueeze(2).unbind(1))
    log_joint = p.logits.log_softmax(1)
    for channel in range(levels.shape[1]):
        centre = coupled_centre(p.means, p.coefficients, targets[:channel], channel)
        level = levels[:, channel].unsqueeze(1)
        log_joint = log_joint + logistic_log_mass(level, centre, p.log_scales[:, channel], bits)
    return log_joint.logsumexp(1)


def mixture_sample(
    p: MixtureParameters, *, rng: Tensor, stream: int, bits: int, temperature: float
) -> Tensor:
    """Returns drawn levels, floating point (N, C, *S).

    A pixel has ceil((1 + C) / 4) Philox blocks: word 0 picks the component, the next C the
    channels, as in `hvae.ops.logistic_mixture_sample`; so up to three channels its noise is equal.
    """
    batch, channels, _, *space = p.means.shape
    blocks = (4 + channels) // 4
    uniform = philox_uniform(rng, stream, math.prod(space) * blocks, batch, p.means.dtype)
    uniform = uniform.reshape(batch, *space, 4 * blocks).movedim(-1, 1)
    cdf = p.logits.softmax(1).cumsum(1)[:, :-1]
    pick = (uniform[:, :1] > cdf).sum(1, keepdim=True).unsqueeze(1)
    means, log_scales, coefficients = (
        value.gather(2, pick.expand(-1, value.shape[1], *[-1] * (pick.ndim - 2))).squeeze(2)
        for value in (p.means, p.log_scales, p.coefficients)
    )
    levels: list[Tensor] = []
    targets: list[Tensor] = []
    for channel in range(channels):
        noise = temperature * log_scales[:, channel].exp() * uniform[:, 1 + channel].logit()
        drawn = coupled_centre(means, coefficients, targets, channel) + noise
        levels.append(nearest_level(drawn, bits))
        targets.append(position(levels[-1], bits, drawn.dtype))
    return torch.stack(levels, 1)


def mixture_mean(p: MixtureParameters) -> Tensor:
    """Returns the mean in [-1, 1], (N, C, *S), chained and cut as `ops.logistic_mixture_mean`."""
    chained: list[Tensor] = []
    for channel in range(p.means.shape[1]):
        chained.append(coupled_centre(p.means, p.coefficients, chained, channel))
    weights = p.logits.softmax(1).unsqueeze(1)
    return (weights * torch.stack(chained, 1)).sum(2).clamp(-1, 1)
