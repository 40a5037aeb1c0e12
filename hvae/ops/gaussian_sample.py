"""A draw from the prior of a latent group, z = mu_p + t sigma_p eps.

Legend and noise as in hvae.ops.gaussian_latent: equal `rng` and `stream` draw equal noise. The
temperature t scales the std, so t = 0 gives the mean. The reference defines the op.
"""

import math
from typing import Any

import torch
from torch import Tensor

from hvae.ops.common import define_op, differentiate, layout_of, reference_forced, refuse_gradient
from hvae.ops.gaussian import (
    StdForm,
    check_buffer,
    check_draw,
    noise_for,
    parameters_of,
    std_code,
    std_of,
    std_slope_of,
)


def gaussian_sample(
    p: Tensor,
    z_channels: int,
    *,
    rng: Tensor,
    stream: int = 0,
    eps: Tensor | None = None,
    temperature: float = 1.0,
    std: StdForm = "softplus",
    floor: float = 1e-3,
) -> Tensor:
    """Return a draw from the prior, z = mu_p + temperature sigma_p eps.

    Args:
        p: (B, 2C + W, *S) prior: C means, C raw stds, and W >= 0 further channels, which are not
            read. float32, bfloat16, float16 or float64.
        z_channels: C.
        rng: int64 (2,) on p's device, (seed, first_sample), see `make_rng`.
        stream: which noise of a sample, usually the index of the latent group.
        eps: (B, C, *S) noise in place of the generated one, dtype of p.
        temperature: scale of the std, finite and >= 0; 0 gives the mean.
        std: "log": sigma = exp(s); "softplus": sigma = floor + log2(1 + 2^s).
        floor: least std of the softplus form, >= 0; not used by "log".

    Returns:
        z (B, C, *S) in p's dtype and layout (contiguous or channels-last; other strides give a
        contiguous result). Arithmetic is in float32, in float64 for float64.

    Differentiable once, in p; inside `hvae.ops.reference()` twice, and in eps.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, a device or an option does not fit.
        NotImplementedError: outside `reference()`, eps requires a gradient or a second derivative
            is taken.
    """
    check_buffer("p", p)
    if not 1 <= z_channels <= p.shape[1] // 2:
        raise ValueError(
            f"z_channels must be in 1..{p.shape[1] // 2}, half the {p.shape[1]} channels of p or "
            f"less, got {z_channels}"
        )
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be finite and >= 0, got {temperature}")
    check_draw(eps, rng, stream, floor, (p.shape[0], z_channels, *p.shape[2:]), "p", p)
    op = _sample if reference_forced() else torch.ops.hvae.gaussian_sample
    floor = 0.0 if std == "log" else float(floor)
    z: Tensor = op(p, eps, rng, stream, z_channels, std_code(std), floor, float(temperature))
    return z


def _sample(
    p: Tensor,
    eps: Tensor | None,
    rng: Tensor,
    stream: int,
    z_channels: int,
    std: int,
    floor: float,
    temperature: float,
) -> Tensor:
    mean, raw = parameters_of(p, z_channels)
    z = mean + temperature * std_of(raw, std, floor) * noise_for(mean, eps, rng, stream)
    return z.to(p.dtype).contiguous(memory_format=layout_of(p))


def _sample_bwd(
    grad_z: Tensor,
    p: Tensor,
    eps: Tensor | None,
    rng: Tensor,
    stream: int,
    z_channels: int,
    std: int,
    floor: float,
    temperature: float,
) -> Tensor:
    mean, raw = parameters_of(p, z_channels)
    noise = noise_for(mean, eps, rng, stream)
    grad_raw = grad_z.to(mean.dtype) * temperature * noise * std_slope_of(raw, std)
    rest = torch.zeros_like(p[:, 2 * z_channels :])
    grad_p = torch.cat([grad_z.to(p.dtype), grad_raw.to(p.dtype), rest], dim=1)
    return grad_p.contiguous(memory_format=layout_of(p))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    p, eps, rng, *ctx.options = inputs
    _, needs_eps, *_ = ctx.needs_input_grad
    refuse_gradient("gaussian_sample", "eps", needs_eps)
    ctx.save_for_backward(p, eps, rng)


def _differentiate(ctx: Any, grad_z: Tensor) -> tuple[Tensor | None, ...]:
    p, eps, rng = ctx.saved_tensors
    grad_p = torch.ops.hvae.gaussian_sample_bwd(grad_z, p, eps, rng, *ctx.options)
    return grad_p, None, None, None, None, None, None, None


define_op(
    "gaussian_sample(Tensor p, Tensor? eps, Tensor rng, int stream, int z_channels, int std, "
    "float floor, float temperature) -> Tensor",
    _sample,
)
define_op(
    "gaussian_sample_bwd(Tensor grad_z, Tensor p, Tensor? eps, Tensor rng, int stream, "
    "int z_channels, int std, float floor, float temperature) -> Tensor",
    _sample_bwd,
)
differentiate("gaussian_sample", _differentiate, _save)
