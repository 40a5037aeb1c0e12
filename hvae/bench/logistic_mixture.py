"""`logistic_mixture_nll` against what its users would write otherwise: eager and compiled torch.

The baseline is the same exact form in plain operations, whose gradient autograd derives.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hvae import _native, ops
from hvae.bench.measure import Call, one_thread
from hvae.bench.report import Comparison, compare
from hvae.errors import UserError
from hvae.ops.logistic_mixture import LOG_SCALE_FLOOR, num_parameters

Nll = Callable[[Tensor, Tensor], Tensor]

MIXTURES = 10
COLOURS = 3
LAST = 255
# Batch and side of the images.
SHAPES = ((8, 64), (32, 32))
DTYPES = (torch.float32, torch.bfloat16)
PASSES = ("forward", "forward + backward")

# Reads and writes of the parameters: both passes read them, the backward writes their gradient.
MOVED_TENSORS = {"forward": 1, "forward + backward": 3}


def run(
    shapes: Sequence[tuple[int, int]] = SHAPES,
    dtypes: Sequence[torch.dtype] = DTYPES,
    rounds: int = 15,
) -> Iterator[Comparison]:
    """Check the op on each case, then measure it on one thread.

    Raises:
        UserError: the kernels are not loaded, so there is nothing to measure.
        AssertionError: the op fails its check; no figure is given for it.
    """
    status = _native.status()
    if not status.loaded:
        raise UserError(f"there is no fused op to measure: {status.reason}")
    with one_thread():
        for (batch, size), dtype in itertools.product(shapes, dtypes):
            params, x = inputs(batch, size, dtype)
            check(params, x)
            for which in PASSES:
                calls = {name: call_of(nll, params, x, which) for name, nll in variants().items()}
                params_bytes = params.numel() * params.element_size()
                yield compare(
                    f"{batch}x{COLOURS}x{size}x{size} {str(dtype).removeprefix('torch.')} {which}",
                    calls,
                    rounds=rounds,
                    moved_bytes=MOVED_TENSORS[which] * params_bytes,
                    copied_bytes=2 * params_bytes,
                )


def check(params: Tensor, x: Tensor) -> None:
    """Raise AssertionError unless all variants agree with the op in float64.

    Values to 1e-5 and gradients, as one vector, to 1e-5; to 2e-2 where parameters are bfloat16,
    which the plain formulas compute in.
    """
    exact = params.detach().double().requires_grad_()
    wanted = ops.logistic_mixture_nll(exact, x)
    (wanted_grad,) = torch.autograd.grad(wanted.sum(), exact)
    tolerance = 2e-2 if params.dtype == torch.bfloat16 else 1e-5
    for name, nll in variants().items():
        value = nll(params, x)
        (grad,) = torch.autograd.grad(value.sum(), params)
        error = (value.double() / wanted - 1).abs().max().item()
        grad_error = ((grad - wanted_grad).norm() / wanted_grad.norm()).item()
        assert max(error, grad_error) < tolerance, f"{name} is off by {max(error, grad_error):.1e}"


def inputs(batch: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Head outputs (B, P, size, size) that want a gradient, and uint8 images."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, num_parameters(COLOURS, MIXTURES), size, size)
    params = (0.5 * torch.randn(shape, generator=generator)).to(dtype).requires_grad_()
    images = (batch, COLOURS, size, size)
    return params, torch.randint(0, LAST + 1, images, generator=generator, dtype=torch.uint8)


def call_of(nll: Nll, params: Tensor, x: Tensor, which: str) -> Call:
    """A call without arguments that runs one pass."""
    if which == "forward":

        def forward() -> object:
            with torch.no_grad():
                return nll(params, x)

        return forward
    cotangent = torch.ones(len(x))

    def forward_backward() -> object:
        return torch.autograd.grad(nll(params, x), params, cotangent)

    return forward_backward


def variants() -> dict[str, Nll]:
    """The variants: each gives the nll (B,) in float32 from params and x."""
    return {
        "eager": plain_nll,
        "compile": torch.compile(plain_nll, dynamic=False),
        "fused": ops.logistic_mixture_nll,
    }


def plain_nll(params: Tensor, x: Tensor) -> Tensor:
    """The exact form in plain operations, at the dtype of the parameters until the sum."""
    logits, rest = params[:, :MIXTURES], params[:, MIXTURES:]
    means, log_scales, coefficients = rest.unflatten(1, (COLOURS, 3, MIXTURES)).unbind(2)
    coefficients = coefficients.tanh()
    target = (2 * x.float() / LAST - 1).unsqueeze(2)
    red, green, _ = target.unbind(1)
    centred = target - torch.stack(
        (
            means[:, 0],
            means[:, 1] + coefficients[:, 0] * red,
            means[:, 2] + coefficients[:, 1] * red + coefficients[:, 2] * green,
        ),
        1,
    )
    inverse = (-log_scales.clamp(min=LOG_SCALE_FLOOR)).exp()
    above, below = (centred + 1 / LAST) * inverse, (centred - 1 / LAST) * inverse
    inside = torch.log(-torch.expm1(-2 / LAST * inverse))
    first, last = (x == 0).unsqueeze(2), (x == LAST).unsqueeze(2)
    log_mass = torch.where(last, 0.0, F.logsigmoid(above))
    log_mass = log_mass + torch.where(first, 0.0, F.logsigmoid(-below))
    log_mass = log_mass + torch.where(first | last, 0.0, inside)
    log_joint = log_mass.sum(1) + logits.log_softmax(1)
    return -log_joint.logsumexp(1).float().sum((1, 2))
