"""The logistic mixture against what its users would write otherwise: eager and compiled torch.

Likelihood: the baseline is the same exact form in plain operations, whose gradient autograd
derives. Sampling: the baseline is the same inverse CDF on uniforms of torch's own generator; the
compiled one draws them in the compiled graph on CUDA, and outside of it on a CPU.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hvae import ops
from hvae.bench.case import TOLERANCES, Case, Shape, label
from hvae.bench.measure import Call
from hvae.ops.logistic_mixture import LOG_SCALE_FLOOR, num_parameters

Nll = Callable[[Tensor, Tensor], Tensor]
Sampler = Callable[[Tensor], Tensor]

MIXTURES = 10
LAST = 255
# Batch, colours (1 or 3), height and width.
SHAPES: tuple[Shape, ...] = ((8, 3, 64, 64), (32, 3, 32, 32))
CUDA_SHAPES: tuple[Shape, ...] = ((32, 3, 64, 64),)
VARIANTS = ("eager", "compile", "fused")
PASSES = ("forward", "forward + backward")

# Reads and writes of (the parameters, the image): both passes read them, the backward writes the
# gradient of the parameters.
MOVED_TENSORS = {"forward": (1, 1), "forward + backward": (3, 2)}


def nll_cases(shape: Shape, dtype: torch.dtype, device: str) -> Iterator[Case]:
    """Checks `logistic_mixture_nll` and its baselines, then gives its passes.

    Raises:
        AssertionError: one of them fails its check.
    """
    params, x = inputs(shape, dtype, device)
    variants = nlls()
    check_nll(params, x, variants)
    for which in PASSES:
        of_params, of_x = MOVED_TENSORS[which]
        yield Case(
            label("logistic_mixture_nll", shape, dtype, which),
            {name: call_of(nll, params, x, which) for name, nll in variants.items()},
            of_params * params.nbytes + of_x * x.nbytes,
        )


def sample_cases(shape: Shape, dtype: torch.dtype, device: str) -> Iterator[Case]:
    """Checks `logistic_mixture_sample` and its baseline, then gives its one pass.

    Raises:
        AssertionError: one of them fails its check.
    """
    params = inputs(shape, dtype, device)[0].detach()
    check_sample(params, shape[1])
    variants = samplers(shape[1], device)
    levels = variants["fused"](params)
    yield Case(
        label("logistic_mixture_sample", shape, dtype),
        {name: partial(sample, params) for name, sample in variants.items()},
        params.nbytes + levels.nbytes,
    )


def check_nll(params: Tensor, x: Tensor, variants: dict[str, Nll]) -> None:
    """Raise AssertionError unless all variants agree with the reference in float64.

    Values, and gradients as one vector, to the tolerance of the dtype that the plain formulas
    compute in.
    """
    exact = params.detach().double().requires_grad_()
    with ops.reference():
        wanted = ops.logistic_mixture_nll(exact, x)
    (wanted_grad,) = torch.autograd.grad(wanted.sum(), exact)
    for name, nll in variants.items():
        value = nll(params, x)
        (grad,) = torch.autograd.grad(value.sum(), params)
        error = (value.double() / wanted - 1).abs().max().item()
        grad_error = ((grad - wanted_grad).norm() / wanted_grad.norm()).item()
        # Negated so that a NaN fails.
        if not (error < TOLERANCES[params.dtype] and grad_error < TOLERANCES[params.dtype]):
            raise AssertionError(f"{name} is off by {error:.1e}, its gradient by {grad_error:.1e}")


def check_sample(params: Tensor, colours: int) -> None:
    """Raise AssertionError unless op and baseline draw what the reference does from equal noise.

    Noise that falls on the border of two levels or components may go either way by rounding, and
    takes the colours after it along: one level in a thousand may differ.
    """
    rng = ops.make_rng(0, device=params.device)
    batch, _, *space = params.shape
    uniform = ops.philox_uniform(rng, 0, space[0] * space[1], batch)
    uniform = uniform.to(torch.float32).movedim(-1, 1).reshape(batch, 4, *space)
    with ops.reference():
        wanted = ops.logistic_mixture_sample(params, colours, rng=rng, stream=0)
    drawn = {
        "eager": plain_sample(params, uniform, colours),
        "fused": ops.logistic_mixture_sample(params, colours, rng=rng, stream=0),
    }
    for name, levels in drawn.items():
        differing = (levels != wanted).double().mean().item()
        assert differing < 1e-3, f"{name} draws other levels than the reference, {differing:.1%}"


def inputs(shape: Shape, dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Head outputs (B, P, H, W) that want a gradient, and uint8 images."""
    generator = torch.Generator().manual_seed(0)
    batch, colours, *space = shape
    channels = num_parameters(colours, MIXTURES)
    params = 0.5 * torch.randn(batch, channels, *space, generator=generator)
    x = torch.randint(0, LAST + 1, shape, generator=generator, dtype=torch.uint8)
    return params.to(device, dtype).requires_grad_(), x.to(device)


def call_of(nll: Nll, params: Tensor, x: Tensor, which: str) -> Call:
    """A call without arguments that runs one pass."""
    if which == "forward":

        def forward() -> object:
            with torch.no_grad():
                return nll(params, x)

        return forward
    cotangent = torch.ones(len(x), device=x.device)

    def forward_backward() -> object:
        return torch.autograd.grad(nll(params, x), params, cotangent)

    return forward_backward


def nlls() -> dict[str, Nll]:
    """The variants: each gives the nll (B,) in float32 from params and x."""
    # One graph, or an error: a fallback to eager would go unseen.
    compiled = torch.compile(plain_nll, dynamic=False, fullgraph=True)
    return dict(zip(VARIANTS, (plain_nll, compiled, ops.logistic_mixture_nll), strict=True))


def samplers(colours: int, device: str = "cpu") -> dict[str, Sampler]:
    """The variants: each draws levels (B, n, H, W) from params."""
    compiled = torch.compile(plain_sample, dynamic=False, fullgraph=True)
    rng = ops.make_rng(0, device=device)

    def noise(params: Tensor) -> Tensor:
        batch, _, *space = params.shape
        return torch.rand(batch, 1 + colours, *space, device=params.device)

    def eager(params: Tensor) -> Tensor:
        return plain_sample(params, noise(params), colours)

    def noise_outside(params: Tensor) -> Tensor:
        return compiled(params, noise(params), colours)

    def fused(params: Tensor) -> Tensor:
        return ops.logistic_mixture_sample(params, colours, rng=rng, stream=0)

    noise_inside = torch.compile(eager, dynamic=False, fullgraph=True)
    compile_ = noise_outside if device == "cpu" else noise_inside
    return dict(zip(VARIANTS, (eager, compile_, fused), strict=True))


def plain_nll(params: Tensor, x: Tensor) -> Tensor:
    """The exact form in plain operations, at the dtype of the parameters until the sum."""
    logits, means, log_scales, coefficients = _split(params, x.shape[1])
    target = (2 * x.float() / LAST - 1).unsqueeze(2)
    centred = target - _coupled(means, coefficients, list(target.unbind(1)))
    inverse = (-log_scales.clamp(min=LOG_SCALE_FLOOR)).exp()
    above, below = (centred + 1 / LAST) * inverse, (centred - 1 / LAST) * inverse
    inside = torch.log(-torch.expm1(-2 / LAST * inverse))
    first, last = (x == 0).unsqueeze(2), (x == LAST).unsqueeze(2)
    log_mass = torch.where(last, 0.0, F.logsigmoid(above))
    log_mass = log_mass + torch.where(first, 0.0, F.logsigmoid(-below))
    log_mass = log_mass + torch.where(first | last, 0.0, inside)
    log_joint = log_mass.sum(1) + logits.log_softmax(1)
    return -log_joint.logsumexp(1).float().sum((1, 2))


def plain_sample(params: Tensor, uniform: Tensor, colours: int) -> Tensor:
    """Levels by inverse CDF, in float32; uniforms (B, 1 + n, H, W), the component's first."""
    logits, *rest = _split(params.float(), colours)
    cdf = logits.softmax(1).cumsum(1)[:, :-1]
    pick = (uniform[:, :1] > cdf).sum(1, keepdim=True).unsqueeze(1)
    means, log_scales, coefficients = (
        per_component.take_along_dim(pick, 2).squeeze(2) for per_component in rest
    )
    noise = log_scales.clamp(min=LOG_SCALE_FLOOR).exp() * uniform[:, 1 : 1 + colours].logit()
    levels: list[Tensor] = []
    targets: list[Tensor] = []
    for colour in range(colours):
        centre = _centre(means, coefficients, targets, colour)
        draw = (centre + noise[:, colour] + 1) / 2 * LAST
        levels.append(draw.round().clamp(0, LAST))
        targets.append(2 * levels[-1] / LAST - 1)
    return torch.stack(levels, 1).long()


class _Split(NamedTuple):
    """Logits (B, M, H, W); the others (B, n, M, H, W), coefficients after tanh."""

    logits: Tensor
    means: Tensor
    log_scales: Tensor
    coefficients: Tensor  # without meaning for one colour


def _split(params: Tensor, colours: int) -> _Split:
    slots = 3 if colours == 3 else 2
    logits, rest = params[:, :MIXTURES], params[:, MIXTURES:]
    parts = rest.unflatten(1, (colours, slots, MIXTURES)).unbind(2)
    return _Split(logits, parts[0], parts[1], parts[-1].tanh())


def _coupled(means: Tensor, coefficients: Tensor, targets: list[Tensor]) -> Tensor:
    return torch.stack([_centre(means, coefficients, targets, c) for c in range(len(targets))], 1)


def _centre(means: Tensor, coefficients: Tensor, targets: list[Tensor], colour: int) -> Tensor:
    """The means of one colour: the second is shifted by the first, the third by both."""
    if colour == 0:
        return means[:, 0]
    if colour == 1:
        return means[:, 1] + coefficients[:, 0] * targets[0]
    return means[:, 2] + coefficients[:, 1] * targets[0] + coefficients[:, 2] * targets[1]
