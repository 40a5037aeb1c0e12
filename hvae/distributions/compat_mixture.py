"""The logistic mixture as the published VDVAE computes it, for parity with its figures.

Three things differ from `hvae.ops.logistic_mixture_nll`. Edges are told by |t| > 0.999, not by the
integer level; an interior mass below 1e-5 is replaced by density times bin width; and at b < 8 bits
targets stand at the lower ends of their bins, (2^(8-b) floor(p / 2^(8-b)) - 127.5) / 127.5, though
bins are 2 / (2^b - 1) wide. They then overlap, and the top level never takes the right tail: masses
add up to more than 1, and the figure is not that of a likelihood. Drawing truncates to integers,
half a level low on average.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hvae.ops.logistic_mixture import LOG_SCALE_FLOOR, split_params
from hvae.ops.mixture import coupled_mean, pick_components

# An interior mass under it is approximated, and a target beyond it counts as an edge.
SMALLEST_MASS = 1e-5
EDGE = 0.999


def compat_nll(params: Tensor, x: Tensor, *, bits: int = 8) -> Tensor:
    """Returns the published negative log-likelihood of uint8 images, nats per example, (N,).

    Computed in float32 (float64 for float64).

    Args:
        params: (N, P, *S) raw head output, see `hvae.ops.logistic_mixture_nll`.
        x: (N, C, *S) uint8, C is 1 or 3.
        bits: bit depth of the target, 1 to 8.
    """
    colours = x.shape[1]
    logits, means, raw_log_scales, raw_coefficients = split_params(params, colours)
    targets = compat_target(x, bits).to(means.dtype)
    coefficients = raw_coefficients.tanh()
    known = list(targets.unsqueeze(2).unbind(1))
    centres = [coupled_mean(means, coefficients, known, colour) for colour in range(colours)]
    centred = targets.unsqueeze(2) - torch.stack(centres, 1)  # (N, n, M, *S)
    log_scales = raw_log_scales.clamp(min=LOG_SCALE_FLOOR)
    inverse_scale, half_bin = log_scales.neg().exp(), 1 / (2**bits - 1)
    above = (centred + half_bin) * inverse_scale
    below = (centred - half_bin) * inverse_scale
    middle = centred * inverse_scale
    mass = above.sigmoid() - below.sigmoid()
    density = middle - log_scales - 2 * F.softplus(middle)
    log_mass = torch.where(
        mass > SMALLEST_MASS,
        mass.clamp(min=1e-10).log(),
        density + math.log(2 * half_bin),
    )
    edge = targets.unsqueeze(2)
    log_mass = torch.where(edge > EDGE, -F.softplus(below), log_mass)
    log_mass = torch.where(edge < -EDGE, above - F.softplus(above), log_mass)
    log_joint = log_mass.sum(1) + logits.log_softmax(1)
    return -log_joint.logsumexp(1).flatten(1).sum(1)


def compat_target(x: Tensor, bits: int) -> Tensor:
    """Returns the published targets in [-1, 1] of uint8 images, rounded to float32 as there."""
    step = 2 ** (8 - bits)
    target: Tensor = (x // step * step - 127.5) * (1 / 127.5)
    return target


def compat_sample(
    params: Tensor, colours: int, *, rng: Tensor, stream: int, temperature: float = 1.0
) -> Tensor:
    """Returns uint8 images (N, n, *S) drawn as the published code draws, from our noise.

    Each colour is clipped to [-1, 1] before it feeds the next, and truncated to an integer.
    Arguments as in `hvae.ops.logistic_mixture_sample`.
    """
    picked = pick_components(split_params(params, colours), rng, stream)
    scales = picked.log_scales.clamp(min=LOG_SCALE_FLOOR).exp()
    values: list[Tensor] = []
    for colour in range(colours):
        centre = coupled_mean(picked.means, picked.coefficients, values, colour)
        noise = temperature * scales[:, colour] * picked.uniform[:, colour].logit()
        values.append((centre + noise).clamp(-1, 1))
    return ((torch.stack(values, 1) + 1) * 127.5).floor().to(torch.uint8)
