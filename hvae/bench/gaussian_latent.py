"""`gaussian_latent` against what its users would write otherwise: eager and compiled torch.

The baselines are the plain formulas with the std of the same form. Noise is part of the work: eager
draws it by `randn_like`; the compiled one draws it in the compiled graph on CUDA, but outside of it
on a CPU, where inductor's own generator is several times slower; the fused op generates it.
"""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from hvae import ops
from hvae.bench.case import TOLERANCES, Case, Shape, label
from hvae.bench.measure import Call
from hvae.ops.gaussian import StdForm
from hvae.testing import check_against_reference, gaussian_latent_case

Draw = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

# Batch, latent channels, height and width.
SHAPES: tuple[Shape, ...] = ((32, 16, 64, 64), (32, 16, 32, 32))
# Small groups, where launches are the point, and one that is far larger than an L2 cache.
CUDA_SHAPES: tuple[Shape, ...] = (
    *((32, 16, size, size) for size in (1, 4, 16, 64)),
    (128, 16, 64, 64),
)
STDS: tuple[StdForm, ...] = ("softplus", "log")
VARIANTS = ("eager", "compile", "fused")
PASSES = ("forward", "forward + backward")
FLOOR = 1e-3

# Reads and writes of tensors the size of z: forward reads four parameters and writes z, backward
# reads them and the gradient of z and writes four gradients.
MOVED_TENSORS = {"forward": 5, "forward + backward": 14}


def cases(shape: Shape, dtype: torch.dtype, device: str) -> Iterator[Case]:
    """Checks the op on each std, then gives its passes; on small maps of one std alone.

    Raises:
        AssertionError: the op or a baseline fails its check.
    """
    q, p = parameters(shape, dtype, device)
    # There launches are what takes the time, and those are the same.
    small = shape[2] * shape[3] <= 16**2
    for std in STDS[:1] if small else STDS:
        variants = draws(std, device)
        check(q, p, std, variants)
        for which in PASSES:
            yield Case(
                label("gaussian_latent", shape, dtype, std, which),
                {name: call_of(draw, q, p, which) for name, draw in variants.items()},
                MOVED_TENSORS[which] * math.prod(shape) * q.element_size(),
            )


def check(q: Tensor, p: Tensor, std: StdForm, variants: dict[str, Draw]) -> None:
    """Raise AssertionError unless op and baselines compute what the reference does."""
    batch, doubled, *space = q.shape
    case = gaussian_latent_case(batch, doubled // 2, space, std=std)
    check_against_reference(case, dtype=q.dtype, device=q.device.type)
    rng = ops.make_rng(0, device=q.device)
    wanted = ops.gaussian_latent(q, p, rng=rng, std=std, floor=FLOOR).kl
    for name, draw in variants.items():
        error = (draw(q, p)[1] / wanted - 1).abs().max().item()
        assert error < TOLERANCES[q.dtype], f"{name} gives another KL than the op, by {error:.1e}"


def parameters(shape: Shape, dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Posterior and prior parameters (B, 2C, H, W) that want gradients."""
    generator = torch.Generator().manual_seed(0)
    batch, channels, *space = shape
    q, p = (
        (0.5 * torch.randn(batch, 2 * channels, *space, generator=generator)).to(device, dtype)
        for _ in range(2)
    )
    return q.requires_grad_(), p.requires_grad_()


def call_of(draw: Draw, q: Tensor, p: Tensor, which: str) -> Call:
    """A call without arguments that runs one pass of `draw`."""
    if which == "forward":

        def forward() -> object:
            with torch.no_grad():
                return draw(q, p)

        return forward
    z, kl = draw(q, p)
    cotangents = (torch.ones_like(z), torch.ones_like(kl))

    def forward_backward() -> object:
        return torch.autograd.grad(draw(q, p), (q, p), cotangents)

    return forward_backward


def draws(std: StdForm, device: str = "cpu") -> dict[str, Draw]:
    """The variants: each gives z (B, C, H, W) and the KL (B,) from q and p."""
    plain = _softplus_draw if std == "softplus" else _log_draw
    # One graph, or an error: a fallback to eager would go unseen.
    compiled = torch.compile(plain, dynamic=False, fullgraph=True)
    rng = ops.make_rng(0, device=device)

    def noise(q: Tensor) -> Tensor:
        return torch.randn_like(q[:, : q.shape[1] // 2])

    def eager(q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        return plain(q, p, noise(q))

    def noise_outside(q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        return compiled(q, p, noise(q))

    def fused(q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        z, kl, _ = ops.gaussian_latent(q, p, rng=rng, std=std, floor=FLOOR)
        return z, kl

    noise_inside = torch.compile(eager, dynamic=False, fullgraph=True)
    compile_ = noise_outside if device == "cpu" else noise_inside
    return dict(zip(VARIANTS, (eager, compile_, fused), strict=True))


def _softplus_draw(q: Tensor, p: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    mean_q, raw_q = q.chunk(2, dim=1)
    mean_p, raw_p = p.chunk(2, dim=1)
    std_q = F.softplus(raw_q, beta=math.log(2)) + FLOOR
    std_p = F.softplus(raw_p, beta=math.log(2)) + FLOOR
    kl = torch.log(std_p / std_q) + (std_q**2 + (mean_q - mean_p) ** 2) / (2 * std_p**2) - 0.5
    return mean_q + std_q * eps, kl.float().sum(dim=(1, 2, 3))


def _log_draw(q: Tensor, p: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    mean_q, log_std_q = q.chunk(2, dim=1)
    mean_p, log_std_p = p.chunk(2, dim=1)
    std_q, std_p = log_std_q.exp(), log_std_p.exp()
    kl = log_std_p - log_std_q + (std_q**2 + (mean_q - mean_p) ** 2) / (2 * std_p**2) - 0.5
    return mean_q + std_q * eps, kl.float().sum(dim=(1, 2, 3))
