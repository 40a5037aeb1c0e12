"""A latent group in one pass: a draw from the posterior, its KL to the prior, the residual.

Legend: q (B, 2C, *S) holds means and raw stds of the posterior, p (B, 2C + W, *S) those of the
prior and W further channels h. Whole convolution outputs go in and whole-buffer gradients come out;
views of their parts would cost a copy each.

    z  = mu_q + sigma_q eps              sigma(s): hvae.ops.gaussian; eps: hvae.ops.philox, or given
    kl = (r^2 + d^2 - 1) / 2 - ln r      r = sigma_q / sigma_p, d = (mu_q - mu_p) / sigma_p
    y  = x + h                           the residual stream

The two references define the ops. The compiled library adds CPU and CUDA kernels to the same
schemas and the dispatcher picks.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from hvae.ops.common import (
    arithmetic_dtype,
    define_op,
    differentiate,
    layout_of,
    reference_forced,
    refuse_gradient,
)
from hvae.ops.gaussian import (
    LOG,
    StdForm,
    check_buffer,
    check_device,
    check_draw,
    check_like,
    noise_for,
    parameters_of,
    std_code,
    std_of,
    std_slope_of,
)

Reduction = Literal["sample", "channel_group", "channel", "none"]


class GaussianLatent(NamedTuple):
    """What `gaussian_latent` returns: the draw, its KL, and the residual stream or None."""

    z: Tensor
    kl: Tensor
    y: Tensor | None


def gaussian_latent(
    q: Tensor,
    p: Tensor,
    x: Tensor | None = None,
    *,
    rng: Tensor,
    stream: int = 0,
    eps: Tensor | None = None,
    std: StdForm = "softplus",
    floor: float = 1e-3,
    reduce: Reduction = "sample",
    groups: int | None = None,
) -> GaussianLatent:
    """Return a posterior draw z, the KL of posterior to prior in nats, and y = x + h.

    z = mu_q + sigma_q eps, and per element KL(q || p) = (r^2 + d^2 - 1)/2 - ln r with
    r = sigma_q / sigma_p and d = (mu_q - mu_p) / sigma_p (Kingma & Welling, arXiv:1312.6114).

    Args:
        q: (B, 2C, *S) posterior: C means, C raw stds. float32, bfloat16, float16 or float64.
        p: (B, 2C + W, *S) prior: C means, C raw stds, W >= 0 further channels h. dtype of q.
        x: (B, W, *S) residual stream, any of these dtypes.
        rng: int64 (2,) on q's device, (seed, first_sample), see `make_rng`.
        stream: which noise of a sample, usually the index of the latent group.
        eps: (B, C, *S) noise in place of the generated one, dtype of q.
        std: "log": sigma = exp(s); "softplus": sigma = floor + log2(1 + 2^s).
        floor: least std of the softplus form, >= 0; not used by "log".
        reduce: what a KL is summed over. "sample": all of a sample; "channel_group": each of
            `groups` equal runs of adjacent channels; "channel": each channel; "none": nothing.
        groups: number of channel groups, a divisor of C; for "channel_group" only.

    Returns:
        z (B, C, *S) in q's dtype and layout; kl (B,), (B, groups), (B, C) or (B, C, *S), float32
        (float64 for float64); y (B, W, *S) in x's dtype and layout, None without x. Contiguous and
        channels-last layouts are kept, other strides give contiguous results. Arithmetic is in
        float32 (float64 for float64) and kl uses unrounded values, never the stored z.

    Differentiable once, in q, p and x; inside `hvae.ops.reference()` twice, and in eps.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, a device or an option does not fit.
        NotImplementedError: outside `reference()`, eps requires a gradient or a second derivative
            is taken.
    """
    _check(q, p, x)
    latent_shape = (q.shape[0], q.shape[1] // 2, *q.shape[2:])
    check_draw(eps, rng, stream, floor, latent_shape, "q", q)
    kl_groups = _kl_groups(latent_shape[1], reduce, groups)
    op = _latent if reference_forced() else torch.ops.hvae.gaussian_latent
    floor = 0.0 if std == "log" else float(floor)
    z, kl, y = op(q, p, x, eps, rng, stream, std_code(std), floor, kl_groups)
    return GaussianLatent(z, kl.squeeze(1) if reduce == "sample" else kl, None if x is None else y)


def _latent(
    q: Tensor,
    p: Tensor,
    x: Tensor | None,
    eps: Tensor | None,
    rng: Tensor,
    stream: int,
    std: int,
    floor: float,
    kl_groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    z_channels = q.shape[1] // 2
    (mean_q, raw_q), (mean_p, raw_p) = parameters_of(q, z_channels), parameters_of(p, z_channels)
    std_q, std_p = std_of(raw_q, std, floor), std_of(raw_p, std, floor)

    z = (mean_q + std_q * noise_for(mean_q, eps, rng, stream)).to(q.dtype)
    ratio, log_ratio = _ratio(raw_q, raw_p, std_q, std_p, std)
    kl = (ratio.square() + ((mean_q - mean_p) / std_p).square() - 1) / 2 - log_ratio
    if kl_groups:
        per_channel = kl.flatten(2).sum(2)
        kl = per_channel.reshape(q.shape[0], kl_groups, z_channels // kl_groups).sum(2)
    else:
        kl = kl.contiguous(memory_format=layout_of(q))
    return z.contiguous(memory_format=layout_of(q)), kl, _residual(p[:, 2 * z_channels :], x)


def _latent_bwd(
    grad_z: Tensor | None,
    grad_kl: Tensor | None,
    grad_y: Tensor | None,
    q: Tensor,
    p: Tensor,
    eps: Tensor | None,
    rng: Tensor,
    stream: int,
    std: int,
    floor: float,
    kl_groups: int,
) -> tuple[Tensor, Tensor]:
    z_channels = q.shape[1] // 2
    (mean_q, raw_q), (mean_p, raw_p) = parameters_of(q, z_channels), parameters_of(p, z_channels)
    std_q, std_p = std_of(raw_q, std, floor), std_of(raw_p, std, floor)
    grad_mean_q, grad_raw_q = torch.zeros_like(mean_q), torch.zeros_like(mean_q)
    grad_mean_p, grad_raw_p = torch.zeros_like(mean_q), torch.zeros_like(mean_q)

    if grad_z is not None:
        grad_z = grad_z.to(mean_q.dtype)
        grad_mean_q = grad_z
        grad_raw_q = grad_z * noise_for(mean_q, eps, rng, stream) * std_slope_of(raw_q, std)
    if grad_kl is not None:
        grad_k = _per_element(grad_kl, mean_q, kl_groups)
        ratio, _ = _ratio(raw_q, raw_p, std_q, std_p, std)
        gap = (mean_q - mean_p) / std_p
        grad_mean_p = -grad_k * gap / std_p
        grad_mean_q = grad_mean_q - grad_mean_p
        relative_q = 1 if std == LOG else std_slope_of(raw_q, std) / std_q
        relative_p = 1 if std == LOG else std_slope_of(raw_p, std) / std_p
        grad_raw_q = grad_raw_q + grad_k * (ratio.square() - 1) * relative_q
        grad_raw_p = grad_k * (1 - ratio.square() - gap.square()) * relative_p

    grad_h = torch.zeros_like(p[:, 2 * z_channels :]) if grad_y is None else grad_y
    grad_q = torch.cat([grad_mean_q, grad_raw_q], 1).to(q.dtype)
    grad_p = torch.cat([grad_mean_p.to(p.dtype), grad_raw_p.to(p.dtype), grad_h.to(p.dtype)], 1)
    return (
        grad_q.contiguous(memory_format=layout_of(q)),
        grad_p.contiguous(memory_format=layout_of(p)),
    )


def _ratio(
    raw_q: Tensor, raw_p: Tensor, std_q: Tensor, std_p: Tensor, std: int
) -> tuple[Tensor, Tensor]:
    # exp(s)^2 / exp(s')^2 overflows where exp(s - s') does not.
    if std == LOG:
        log_ratio = raw_q - raw_p
        return torch.exp(log_ratio), log_ratio
    ratio = std_q / std_p
    return ratio, torch.log(ratio)


def _residual(h: Tensor, x: Tensor | None) -> Tensor:
    if x is None:
        return h.new_empty(0)
    wide = arithmetic_dtype(torch.promote_types(x.dtype, h.dtype))
    return (x.to(wide) + h.to(wide)).to(x.dtype).contiguous(memory_format=layout_of(x))


def _per_element(grad_kl: Tensor, like: Tensor, kl_groups: int) -> Tensor:
    if not kl_groups:
        return grad_kl
    channels = grad_kl.repeat_interleave(like.shape[1] // kl_groups, dim=1)  # (B, C)
    return channels.reshape(*channels.shape, *(1 for _ in like.shape[2:]))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, p, x, eps, rng, *ctx.options = inputs
    needs_q, needs_p, _, needs_eps, *_ = ctx.needs_input_grad
    refuse_gradient("gaussian_latent", "eps", needs_eps)
    ctx.has_x = x is not None
    ctx.set_materialize_grads(False)
    if needs_q or needs_p:
        ctx.save_for_backward(q, p, eps, rng)


def _differentiate(
    ctx: Any, grad_z: Tensor | None, grad_kl: Tensor | None, grad_y: Tensor | None
) -> tuple[Tensor | None, ...]:
    needs_q, needs_p, needs_x, *_ = ctx.needs_input_grad
    grad_q = grad_p = None
    grad_y = grad_y if ctx.has_x else None
    if needs_q or needs_p:
        q, p, eps, rng = ctx.saved_tensors
        grad_q, grad_p = torch.ops.hvae.gaussian_latent_bwd(
            grad_z, grad_kl, grad_y, q, p, eps, rng, *ctx.options
        )
    return grad_q, grad_p, grad_y if needs_x else None, None, None, None, None, None, None


def _kl_groups(z_channels: int, reduce: Reduction, groups: int | None) -> int:
    if (groups is not None) != (reduce == "channel_group"):
        raise ValueError(
            f'groups goes with reduce="channel_group" and nothing else, '
            f"got groups={groups} with reduce={reduce!r}"
        )
    if groups is not None:
        if groups < 1 or z_channels % groups:
            raise ValueError(f"groups must divide the {z_channels} latent channels, got {groups}")
        return groups
    counts = {"none": 0, "sample": 1, "channel": z_channels}
    if reduce not in counts:
        raise ValueError(
            f"reduce must be one of {sorted([*counts, 'channel_group'])}, got {reduce!r}"
        )
    return counts[reduce]


def _check(q: Tensor, p: Tensor, x: Tensor | None) -> None:
    check_buffer("q", q)
    channels = q.shape[1]
    if channels < 2 or channels % 2:
        raise ValueError(f"q must have 2C channels, means and raw stds, got {channels}")
    check_buffer("p", p)
    if p.dtype != q.dtype:
        raise TypeError(f"p must have the dtype of q, {q.dtype}, got {p.dtype}")
    check_device("p", p, "q", q)
    batch_and_space = (q.shape[0], *q.shape[2:])
    if (p.shape[0], *p.shape[2:]) != batch_and_space or p.shape[1] < channels:
        raise ValueError(
            f"p must have the shape of q, {tuple(q.shape)}, with {channels} channels or more, "
            f"got {tuple(p.shape)}"
        )
    if x is None:
        return
    check_buffer("x", x)
    width = p.shape[1] - channels
    if width == 0:
        raise ValueError(
            f"x needs W more channels in p than the {channels} of q, but p has as many"
        )
    check_like("x", x, (q.shape[0], width, *q.shape[2:]), "p", p)


define_op(
    "gaussian_latent(Tensor q, Tensor p, Tensor? x, Tensor? eps, Tensor rng, int stream, int std, "
    "float floor, int kl_groups) -> (Tensor z, Tensor kl, Tensor y)",
    _latent,
)
define_op(
    "gaussian_latent_bwd(Tensor? grad_z, Tensor? grad_kl, Tensor? grad_y, Tensor q, Tensor p, "
    "Tensor? eps, Tensor rng, int stream, int std, float floor, int kl_groups) "
    "-> (Tensor grad_q, Tensor grad_p)",
    _latent_bwd,
)
differentiate("gaussian_latent", _differentiate, _save)
