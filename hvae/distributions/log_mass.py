"""Log-masses of bins under a logistic and under a normal, exact in float32 for any width of a bin.

A level's bin is [t - d, t + d] about its position t, d = 1 / (L - 1); the lowest level takes the
whole lower tail and the highest the upper one, so that the masses of all levels sum to 1. With
location mu and scale s the edges are a = (t - mu + d) / s above and b = (t - mu - d) / s below.

The plain ln(F(a) - F(b)) fails twice: in a tail both terms round to 0 or to 1, and where the bin is
narrow they cancel. Neither formula here subtracts numbers that are nearly equal.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hvae.ops.logistic_mixture import LOG_SCALE_FLOOR

# Scales are bounded in the logarithm, because exp() is not. At 8 bits the floor is an eighth of a
# bin, and at the ceiling a level between the ends has a mass of about 1e-11.
LOG_SCALE_CEILING = 20.0


def soft_log_scale(raw: Tensor) -> Tensor:
    """Returns raw head outputs as log-scales within the bounds above.

    At the floor by a softplus, whose gradient fades but does not stop: a scale that fell under it
    can come back.
    """
    return (LOG_SCALE_FLOOR + F.softplus(raw - LOG_SCALE_FLOOR)).clamp(max=LOG_SCALE_CEILING)


def logistic_log_mass(levels: Tensor, centre: Tensor, log_scale: Tensor, bits: int) -> Tensor:
    """Returns ln(F(a) - F(b)) of a logistic, in the dtype of `centre`.

    ln sigmoid(a) + ln sigmoid(-b) + ln(1 - e^-(a - b)), where a - b = 2d / s is not subtracted.

    Args:
        levels: integer levels; broadcasts against the parameters.
        centre: mu.
        log_scale: ln s, within the bounds above.
        bits: bit depth of the levels.
    """
    last = 2**bits - 1
    inverse_scale = log_scale.neg().exp()
    lower, upper = _edges(levels, bits, centre.dtype)
    is_first, is_last = levels == 0, levels == last
    inside = (-torch.expm1(-2 / last * inverse_scale)).log()
    log_mass: Tensor = (
        F.logsigmoid((upper - centre) * inverse_scale).masked_fill(is_last, 0.0)
        + F.logsigmoid((centre - lower) * inverse_scale).masked_fill(is_first, 0.0)
        + inside.masked_fill(is_first | is_last, 0.0)
    )
    return log_mass


def normal_log_mass(levels: Tensor, centre: Tensor, log_scale: Tensor, bits: int) -> Tensor:
    """Returns ln(F(a) - F(b)) of a normal, in the dtype of `centre`; arguments as above.

    Differentiable once; a second derivative raises.
    """
    last = 2**bits - 1
    inverse_scale = log_scale.neg().exp()
    lower, upper = _edges(levels, bits, centre.dtype)
    nearer_edge = torch.maximum(lower - centre, centre - upper) * inverse_scale
    end = torch.where(levels == 0, upper - centre, centre - lower) * inverse_scale
    return torch.where(
        (levels == 0) | (levels == last),
        _log_ndtr(end),
        _bin_log_mass(nearer_edge, inverse_scale / last),
    )


def _edges(levels: Tensor, bits: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Lower and upper edges of bins, each rounded once: t and d apart would lose digits."""
    last = 2**bits - 1
    doubled: Tensor = 2 * levels.to(dtype) - last
    return (doubled - 1) / last, (doubled + 1) / last


class _LogNdtr(torch.autograd.Function):
    """torch.special.log_ndtr with its derivative phi(x) / Phi(x).

    Torch's own derivative cancels: in float32 it is off by 4 % at -1000 (torch 2.13).
    """

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        value: Tensor = torch.special.log_ndtr(x)
        return value

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        with torch.no_grad():
            grad_x = grad * _hazard(-x)
        return _once(grad_x, grad, x)


class _BinLogMass(torch.autograd.Function):
    """ln m, m = Q(e) - Q(e + 2h): the mass of a bin of half-width h that begins at e >= -h.

    Two formulas, each exact to rounding where it is used: the integral of the density where that is
    nearly constant over the bin, and elsewhere a difference of tails, the larger of which is then
    1.4 times the smaller or more. With the centre at c = e + h and u = phi(e) / m,

        d ln m / de = -u (1 - e^(-2ch))        d ln m / dh = 2u e^(-2ch).
    """

    @staticmethod
    def forward(edge: Tensor, h: Tensor) -> Tensor:
        return torch.where(_is_flat(edge, h), _flat_log_mass(edge, h), _steep_log_mass(edge, h))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        edge, h = ctx.saved_tensors
        with torch.no_grad():
            c = edge + h
            flat = (c * h - h.square() / 2).exp() / (2 * h * _flat_mean(c, h))
            steep = _hazard(edge) / -torch.expm1(_log_tail_ratio(edge, h))
            share = grad * torch.where(_is_flat(edge, h), flat, steep)
            fall = torch.expm1(-2 * c * h)
            grad_edge, grad_h = share * fall, 2 * share * (1 + fall)
        return _once(grad_edge, grad, edge, h), _once(grad_h, grad, edge, h)


class _Once(torch.autograd.Function):
    """A gradient that refuses to be differentiated in what it was computed from.

    Not `once_differentiable`, which looks at the incoming gradient alone: where that is a constant
    the second derivative would be cut without a word.
    """

    @staticmethod
    def forward(gradient: Tensor, *origins: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        raise NotImplementedError(
            "normal_log_mass is differentiable once, but a second derivative was asked for"
        )


def _once(gradient: Tensor, *origins: Tensor) -> Tensor:
    value: Tensor = _Once.apply(gradient, *origins)  # type: ignore[no-untyped-call]
    return value


def _log_ndtr(x: Tensor) -> Tensor:
    value: Tensor = _LogNdtr.apply(x)  # type: ignore[no-untyped-call]
    return value


def _bin_log_mass(edge: Tensor, h: Tensor) -> Tensor:
    value: Tensor = _BinLogMass.apply(edge, h)  # type: ignore[no-untyped-call]
    return value


def _is_flat(edge: Tensor, h: Tensor) -> Tensor:
    return h * (edge + h + 1) < 0.25


def _flat_log_mass(edge: Tensor, h: Tensor) -> Tensor:
    """Returns ln(2h phi(c)) + the logarithm of the mean below."""
    c = edge + h
    return (2 * h).log() - c.square() / 2 - 0.5 * math.log(2 * math.pi) + _flat_mean(c, h).log()


# Gauss-Legendre with six nodes on [-1, 1], as three pairs whose weights sum to 1. Where it is used
# its error is below 1e-15.
_NODES = (0.238619186083196908631, 0.661209386466264513661, 0.932469514203152027812)
_WEIGHTS = (0.467913934572691047390, 0.360761573048138607570, 0.171324492379170345040)


def _flat_mean(c: Tensor, h: Tensor) -> Tensor:
    """The mean over w in [-h, h] of exp(-c w - w^2 / 2)."""
    mean = torch.zeros_like(c)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        mean += weight * torch.cosh(c * h * node) * (-(h * node).square() / 2).exp()
    return mean


def _steep_log_mass(edge: Tensor, h: Tensor) -> Tensor:
    """Returns ln Q(e) + ln(1 - r), with r the ratio below."""
    near: Tensor = torch.special.log_ndtr(-edge)
    return near + (-torch.expm1(_log_tail_ratio(edge, h))).log()


def _log_tail_ratio(edge: Tensor, h: Tensor) -> Tensor:
    """Returns ln r, r = Q(e + 2h) / Q(e).

    Far out ln Q is of the order of e^2, and two of them differ by less than they are rounded by.
    There the ratio is taken from Q(x) = phi(x) / hazard(x) without the squares.
    """
    far = edge + 2 * h
    outside = (_hazard(edge) / _hazard(far)).log() - 2 * (edge + h) * h
    inside = torch.special.log_ndtr(-far) - torch.special.log_ndtr(-edge)
    return torch.where(edge > 0, outside, inside)


def _hazard(x: Tensor) -> Tensor:
    """phi(x) / Q(x), with Q the upper tail of N(0, 1)."""
    hazard: Tensor = math.sqrt(2 / math.pi) / torch.special.erfcx(x * math.sqrt(0.5))
    return hazard
