"""Draws from the discretised logistic mixture, and its mean; see `hvae.ops.logistic_mixture`."""

import torch
from torch import Tensor

from hvae.ops.common import define_op, layout_of, reference_forced
from hvae.ops.logistic_mixture import LOG_SCALE_FLOOR, check_params, split_params
from hvae.ops.mixture import coupled_mean, mixture_mean, pick_components
from hvae.ops.philox import check_noise


def logistic_mixture_sample(
    params: Tensor,
    colours: int,
    *,
    rng: Tensor,
    stream: int,
    bits: int = 8,
    temperature: float = 1.0,
) -> Tensor:
    """Returns levels drawn from the mixture, int32 (N, n, *S).

    One Philox block per pixel: word 0 picks the component by inverse CDF, words 1 to n the colours,
    each a logistic draw rounded to the nearest level (tails go to the end levels), which is exactly
    the distribution of `logistic_mixture_nll`. The drawn level feeds the next colour. Parameters
    that are not finite give level 0.

    Args:
        params: (N, P, *S), float32, bfloat16, float16 or float64.
        colours: n, 1 or 3.
        rng: int64 (2,), seed and global index of the first sample.
        stream: Philox stream of the output.
        bits: bit depth of the levels, 1 to 16.
        temperature: multiplies the logistic scale; 0 gives the picked component's mean.

    Raises:
        ValueError: if the channels of `params` fit no number of mixtures, or `colours` or `bits` is
            not as above.
        TypeError, ValueError: if `rng` or `stream` is no noise state.
    """
    check_params(params, colours, bits)
    check_noise(rng, stream)
    op = _sample if reference_forced() else torch.ops.hvae.logistic_mixture_sample
    levels: Tensor = op(params.detach(), rng, stream, colours, bits, temperature)
    return levels


def _sample(
    params: Tensor, rng: Tensor, stream: int, colours: int, bits: int, temperature: float
) -> Tensor:
    picked = pick_components(split_params(params, colours), rng, stream)
    scales = picked.log_scales.clamp(min=LOG_SCALE_FLOOR).exp()
    last = 2**bits - 1
    targets: list[Tensor] = []
    levels: list[Tensor] = []
    for colour in range(colours):
        centre = coupled_mean(picked.means, picked.coefficients, targets, colour)
        draw = centre + temperature * scales[:, colour] * picked.uniform[:, colour].logit()
        levels.append(((draw + 1) / 2 * last).nan_to_num(0.0).clamp(0, last).round())
        targets.append((2 * levels[-1] - last) / last)
    drawn = torch.stack(levels, 1)
    out = torch.empty_like(drawn, dtype=torch.int32, memory_format=layout_of(params))
    return out.copy_(drawn)


def logistic_mixture_mean(params: Tensor, colours: int) -> Tensor:
    """Returns the mean of the mixture in [-1, 1], (N, n, *S), float32 or float64; differentiable.

    What the end levels collect from the tails is ignored, but for a final clamp.
    """
    return mixture_mean(split_params(params, colours))


define_op(
    "logistic_mixture_sample(Tensor params, Tensor rng, int stream, int colours, int bits, "
    "float temperature) -> Tensor",
    _sample,
)
