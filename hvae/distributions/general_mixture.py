"""The discretised logistic mixture for any number of channels, coupled or not, in PyTorch.

`hvae.ops.logistic_mixture_nll` is fused for one channel and for three coupled ones; this is the
same distribution for all others. Per pixel, with M components,

    P(k) = sum_m pi_m prod_c P(k_c; mu_cm, s_cm),
    mu_cm = mean_cm + sum_(b < c) tanh(coef_bcm) t_b.

Without coupling the coefficients are left out; channels still share the component of their pixel.
Channels of the parameters: M logits; C x M means; C x M raw log-scales; and, when coupled,
C (C - 1) / 2 x M raw coefficients, those of channel 1 first and in each by the earlier channel.
"""

import torch
from torch import Tensor

from hvae.distributions.levels import nearest_level, position
from hvae.distributions.log_mass import LOG_SCALE_CEILING, logistic_log_mass
from hvae.ops.logistic_mixture import LOG_SCALE_FLOOR
from hvae.ops.mixture import MixtureParameters, coupled_mean, num_coefficients, pick_components


def num_parameters(channels: int, mixtures: int, coupled: bool) -> int:
    """Returns P, the channels of the parameters."""
    return mixtures * (1 + 2 * channels + (num_coefficients(channels) if coupled else 0))


def split(params: Tensor, channels: int, coupled: bool) -> MixtureParameters:
    """Returns head outputs (N, P, *S) by their meaning."""
    slots = params.unflatten(1, (num_parameters(channels, 1, coupled), -1))
    parts = [1, channels, channels, slots.shape[1] - 1 - 2 * channels]
    logits, means, log_scales, coefficients = slots.split(parts, 1)
    return MixtureParameters(logits.squeeze(1), means, log_scales, coefficients)


def mixture_log_prob(p: MixtureParameters, levels: Tensor, bits: int) -> Tensor:
    """Returns the log-probability of each pixel's levels (N, C, *S), nats, (N, *S)."""
    targets = list(position(levels, bits, p.means.dtype).unsqueeze(2).unbind(1))
    log_scales, coefficients = _bounded(p.log_scales), p.coefficients.tanh()
    log_joint = p.logits.log_softmax(1)
    for channel in range(levels.shape[1]):
        centre = coupled_mean(p.means, coefficients, targets, channel)
        level = levels[:, channel].unsqueeze(1)
        log_joint = log_joint + logistic_log_mass(level, centre, log_scales[:, channel], bits)
    return log_joint.logsumexp(1)


def mixture_sample(
    p: MixtureParameters, *, rng: Tensor, stream: int, bits: int, temperature: float
) -> Tensor:
    """Returns drawn levels, floating point (N, C, *S).

    Up to three channels the noise is that of `hvae.ops.logistic_mixture_sample`.
    """
    picked = pick_components(p, rng, stream)
    scales = _bounded(picked.log_scales).exp()
    levels: list[Tensor] = []
    targets: list[Tensor] = []
    for channel in range(scales.shape[1]):
        centre = coupled_mean(picked.means, picked.coefficients, targets, channel)
        drawn = centre + temperature * scales[:, channel] * picked.uniform[:, channel].logit()
        levels.append(nearest_level(drawn, bits))
        targets.append(position(levels[-1], bits, drawn.dtype))
    return torch.stack(levels, 1)


def _bounded(log_scales: Tensor) -> Tensor:
    return log_scales.clamp(LOG_SCALE_FLOOR, LOG_SCALE_CEILING)
