"""Discretised mixture of logistics over integer levels: the likelihood.

PixelCNN++ (Salimans et al., arXiv 1701.05517) section 2.1, with two changes. The mass of an
interior level is taken as

    ln(sigmoid(a) - sigmoid(b)) = ln sigmoid(a) + ln sigmoid(-b) + ln(1 - exp(-(a - b)))

which needs no threshold and sums to 1 over the levels, and edges are told by the integer level.

Shapes: N batch, n colours (1 or 3), M mixtures, *S one to three spatial dimensions.
Channels of `params` (N, P, *S), P = 3M for n = 1 and 10M for n = 3: mixture logits `0..M-1`; then
for each colour its M means, M raw log-scales and, for n = 3, M raw coefficients.
Levels k in 0..L-1, L = 2^bits, stand at t = (2k - (L - 1)) / (L - 1) in [-1, 1].
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hvae.ops.common import (
    arithmetic_dtype,
    define_op,
    differentiate,
    reference_forced,
)
from hvae.ops.mixture import MixtureParameters, coupled_mean

LOG_SCALE_FLOOR = -7.0

_LEVEL_DTYPES = (torch.uint8, torch.int16, torch.int32)  # that kernels read


def num_parameters(colours: int, mixtures: int) -> int:
    """Returns P, the channels of `params` for `colours` (1 or 3) and `mixtures`."""
    return mixtures * (10 if colours == 3 else 3)


def logistic_mixture_nll(
    params: Tensor, x: Tensor, *, bits: int = 8, reduce: str = "sample"
) -> Tensor:
    """Returns the negative log-likelihood of integer levels, in nats.

    Computed and returned in float32 (float64 for float64). Differentiable once, in `params`;
    inside `hvae.ops.reference()` twice.

    Args:
        params: (N, P, *S) raw head output, float32, bfloat16, float16 or float64.
        x: (N, n, *S) levels 0 .. 2^bits - 1, any integer dtype; n is 1 or 3.
        bits: bit depth of the levels, 1 to 16.
        reduce: "sample" sums over pixels to (N,); "pixel" gives (N, *S), summed over colours.

    Raises:
        ValueError: if the channels of `params` fit no number of mixtures, shapes differ, or `x`
            does not hold integers.
    """
    _check(params, x, bits)
    if reduce not in ("sample", "pixel"):
        raise ValueError(f'reduce: wanted "sample" or "pixel", got {reduce!r}')
    if x.dtype not in _LEVEL_DTYPES:
        x = x.int()
    nll: Tensor
    if reference_forced():
        nll = _nll(params, x, bits, reduce == "pixel")
    elif _gradient_in_forward(params):
        nll, _ = torch.ops.hvae.logistic_mixture_nll_grad(params, x, bits, reduce == "pixel")
    else:
        nll = torch.ops.hvae.logistic_mixture_nll(params, x, bits, reduce == "pixel")
    return nll


def _gradient_in_forward(params: Tensor) -> bool:
    """Whether the forward pass computes the gradient too, for the backward to scale.

    So on a CPU, where arithmetic is what the op spends its time on: 1.4 times faster than to
    compute everything again, for twice the peak memory; in half precision the gradient is rounded
    twice. A GPU would move a third more bytes.
    """
    return params.requires_grad and torch.is_grad_enabled() and params.device.type == "cpu"


class _Components(NamedTuple):
    """What forward and backward share; (N, n, M, *S) unless said otherwise."""

    logits: Tensor  # (N, M, *S)
    targets: Tensor  # (N, n, 1, *S), in [-1, 1]
    coefficients: Tensor  # after tanh; (N, 0, M, *S) for one colour
    inverse_scale: Tensor
    floored: Tensor  # True where the raw log-scale lies under the floor
    lower: Tensor  # a, the standardised upper edge of the bin
    upper: Tensor  # -b, minus its standardised lower edge
    width: Tensor  # a - b, from the scale alone: subtracting the two cancels
    is_first: Tensor  # (N, n, 1, *S), level 0
    is_last: Tensor  # (N, n, 1, *S), level L - 1


def check_params(params: Tensor, colours: int, bits: int) -> None:
    """Raises ValueError unless the parameters, colours and bit depth are those of a mixture."""
    if colours not in (1, 3):
        raise ValueError(f"colours: wanted 1 or 3, got {colours}")
    each = num_parameters(colours, 1)
    if params.ndim not in (3, 4, 5) or params.shape[1] == 0 or params.shape[1] % each:
        raise ValueError(
            f"params: wanted (N, {each} x mixtures, *S) for {colours} colours, "
            f"got {tuple(params.shape)}"
        )
    if not 1 <= bits <= 16:
        raise ValueError(f"bits: wanted 1 to 16, got {bits}")


def _check(params: Tensor, x: Tensor, bits: int) -> None:
    if x.ndim < 3 or x.shape[1] not in (1, 3):
        raise ValueError(f"x: wanted (N, 1 or 3, *S), got {tuple(x.shape)}")
    check_params(params, x.shape[1], bits)
    if params.ndim != x.ndim or params.shape[0] != x.shape[0] or params.shape[2:] != x.shape[2:]:
        raise ValueError(f"params {tuple(params.shape)} and x {tuple(x.shape)} differ in N or *S")
    if x.is_floating_point():
        raise ValueError(f"x: wanted integer levels, got {x.dtype}")


def split_params(params: Tensor, colours: int) -> MixtureParameters:
    """Returns the parameters by their meaning, in the dtype of the arithmetic."""
    params = params.to(arithmetic_dtype(params.dtype))
    slots = 3 if colours == 3 else 2
    mixtures = params.shape[1] // num_parameters(colours, 1)
    logits, rest = params[:, :mixtures], params[:, mixtures:]
    rest = rest.unflatten(1, (colours, slots, mixtures))
    coefficients = rest[:, :, 2] if slots == 3 else rest[:, :0, 0]
    return MixtureParameters(logits, rest[:, :, 0], rest[:, :, 1], coefficients)


def _components(params: Tensor, x: Tensor, bits: int) -> _Components:
    colours, last = x.shape[1], 2**bits - 1
    logits, means, raw_log_scales, raw_coefficients = split_params(params, colours)
    coefficients = raw_coefficients.tanh()
    targets = ((2 * x.to(means.dtype) - last) / last).unsqueeze(2)
    if colours == 3:
        known = list(targets.unbind(1))
        means = torch.stack([coupled_mean(means, coefficients, known, c) for c in range(3)], 1)
    inverse_scale = raw_log_scales.clamp(min=LOG_SCALE_FLOOR).neg().exp()
    centred, delta = targets - means, 1 / last
    return _Components(
        logits=logits,
        targets=targets,
        coefficients=coefficients,
        inverse_scale=inverse_scale,
        floored=raw_log_scales < LOG_SCALE_FLOOR,
        lower=(centred + delta) * inverse_scale,
        upper=(delta - centred) * inverse_scale,
        width=2 * delta * inverse_scale,
        is_first=(x == 0).unsqueeze(2),
        is_last=(x == last).unsqueeze(2),
    )


def _log_joint(c: _Components) -> Tensor:
    """Returns ln(weight x mass) of each component, (N, M, *S)."""
    inside = (-torch.expm1(-c.width)).log()
    log_mass = (
        F.logsigmoid(c.lower).masked_fill(c.is_last, 0.0)
        + F.logsigmoid(c.upper).masked_fill(c.is_first, 0.0)
        + inside.masked_fill(c.is_first | c.is_last, 0.0)
    )
    return log_mass.sum(1) + c.logits.log_softmax(1)


def _nll(params: Tensor, x: Tensor, bits: int, per_pixel: bool) -> Tensor:
    nll = -_log_joint(_components(params, x, bits)).logsumexp(1)
    return nll if per_pixel else nll.flatten(1).sum(1)


def _nll_bwd(grad: Tensor, params: Tensor, x: Tensor, bits: int, per_pixel: bool) -> Tensor:
    """The gradient in closed form.

    With w the posterior weights of the components, A = sigmoid(-a), B = sigmoid(b), D = a - b:
    d mean = w (A - B) / s,  d log-scale = w (a A - b B + D / (e^D - 1)),  d logit = softmax - w.
    """
    c = _components(params, x, bits)
    weights = _log_joint(c).softmax(1)
    grad = grad.to(weights.dtype)
    grad = grad.unsqueeze(1) if per_pixel else grad.reshape(-1, *[1] * (x.ndim - 1))
    beyond = (-c.lower).sigmoid().masked_fill(c.is_last, 0.0)
    before = (-c.upper).sigmoid().masked_fill(c.is_first, 0.0)
    inside = (c.width / c.width.expm1()).masked_fill(c.is_first | c.is_last, 0.0)
    share = (grad * weights).unsqueeze(1)
    grad_means = share * (beyond - before) * c.inverse_scale
    grad_log_scales = share * (c.lower * beyond + c.upper * before + inside)
    slots = [grad_means, grad_log_scales.masked_fill(c.floored, 0.0)]
    if x.shape[1] == 3:
        multiplier = c.targets[:, [0, 0, 1]]
        through = grad_means[:, [1, 2, 2]]
        slots.append(through * multiplier * (1 - c.coefficients**2))
    grad_logits = grad * (c.logits.softmax(1) - weights)
    flat = torch.cat((grad_logits, torch.stack(slots, 2).flatten(1, 3)), 1)
    return torch.empty_like(params).copy_(flat)  # in the dtype and memory format of params


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, bool], output: Tensor) -> None:
    params, x, ctx.bits, ctx.per_pixel = inputs
    ctx.save_for_backward(params, x)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    params, x = ctx.saved_tensors
    bwd = torch.ops.hvae.logistic_mixture_nll_bwd
    return bwd(grad, params, x, ctx.bits, ctx.per_pixel), None, None, None


def _nll_grad(params: Tensor, x: Tensor, bits: int, per_pixel: bool) -> tuple[Tensor, Tensor]:
    nll = _nll(params, x, bits, per_pixel)
    return nll, _nll_bwd(torch.ones_like(nll), params, x, bits, per_pixel)


def _nll_grad_bwd(grad_nll: Tensor, grad: Tensor, nll: Tensor) -> Tensor:
    """The gradient of each sample, or of each pixel, times what came in for its nll.

    `nll` is not read. Autograd knows where it comes from, so that a second derivative finds its way
    to the refusal instead of ending unnoticed at `grad`, a constant.
    """
    if grad_nll.ndim == 1:
        factor = grad_nll.reshape(-1, *[1] * (grad.ndim - 1))
    else:
        factor = grad_nll.unsqueeze(1)
    return torch.empty_like(grad).copy_(grad * factor)


def _setup_context_grad(
    ctx: Any, inputs: tuple[Tensor, Tensor, int, bool], output: tuple[Tensor, Tensor]
) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output)


def _backward_grad(
    ctx: Any, grad_nll: Tensor | None, _: None
) -> tuple[Tensor | None, None, None, None]:
    if grad_nll is None:
        return None, None, None, None
    nll, grad = ctx.saved_tensors
    return torch.ops.hvae.logistic_mixture_nll_grad_bwd(grad_nll, grad, nll), None, None, None


define_op("logistic_mixture_nll(Tensor params, Tensor x, int bits, bool per_pixel) -> Tensor", _nll)
define_op(
    "logistic_mixture_nll_bwd("
    "Tensor grad, Tensor params, Tensor x, int bits, bool per_pixel) -> Tensor",
    _nll_bwd,
)
differentiate("logistic_mixture_nll", _backward, _setup_context)
define_op(
    "logistic_mixture_nll_grad("
    "Tensor params, Tensor x, int bits, bool per_pixel) -> (Tensor, Tensor)",
    _nll_grad,
)
define_op(
    "logistic_mixture_nll_grad_bwd(Tensor grad_nll, Tensor grad, Tensor nll) -> Tensor",
    _nll_grad_bwd,
)
differentiate(
    "logistic_mixture_nll_grad", _backward_grad, _setup_context_grad, "logistic_mixture_nll"
)
