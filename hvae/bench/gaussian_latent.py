"""`gaussian_latent` against what its users would write otherwise: eager and compiled torch.

The baselines are the plain formulas with the std of the same form. Noise is part of the work: eager
draws it by `randn_like`; for the compiled one it is drawn outside the compiled region, since
inductor's own CPU generator is several times slower; the fused op generates it.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hvae import _native, ops
from hvae.bench import report
from hvae.bench.measure import Call, one_thread
from hvae.bench.report import Comparison
from hvae.errors import UserError
from hvae.ops.gaussian import StdForm
from hvae.testing import check_against_reference, gaussian_latent_case

Draw = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

BATCH = 32
Z_CHANNELS = 16
SIZES = (32, 64)
DTYPES = (torch.float32, torch.bfloat16)
STDS: tuple[StdForm, ...] = ("softplus", "log")
VARIANTS = ("eager", "compile", "fused")
PASSES = ("forward", "forward + backward")
FLOOR = 1e-3

# Reads and writes of tensors the size of z: forward reads four parameters and writes z, backward
# reads them and the gradient of z and writes four gradients.
MOVED_TENSORS = {"forward": 5, "forward + backward": 14}


def run(
    sizes: Sequence[int] = SIZES,
    dtypes: Sequence[torch.dtype] = DTYPES,
    stds: Sequence[StdForm] = STDS,
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
        for std, size, dtype in itertools.product(stds, sizes, dtypes):
            check(size, dtype, std)
            q, p = parameters(size, dtype)
            for which in PASSES:
                yield compare(q, p, std, which, rounds)


def check(size: int, dtype: torch.dtype, std: StdForm) -> None:
    """Raise AssertionError unless op and baselines compute what the reference does."""
    case = gaussian_latent_case(BATCH, Z_CHANNELS, (size, size), std=std)
    check_against_reference(case, dtype=dtype)
    q, p = parameters(size, torch.float32)
    wanted = ops.gaussian_latent(q, p, rng=ops.make_rng(0), std=std, floor=FLOOR).kl
    for name, draw in draws(std).items():
        error = (draw(q, p)[1] / wanted - 1).abs().max().item()
        assert error < 1e-5, f"{name} gives another KL than the op, by {error:.1e}"


def compare(q: Tensor, p: Tensor, std: StdForm, which: str, rounds: int) -> Comparison:
    """Measure one pass of all variants on (B, 2C, H, W) parameters."""
    calls = {name: call_of(draw, q, p, which) for name, draw in draws(std).items()}
    latent_bytes = q.numel() // 2 * q.element_size()
    shape = "x".join(map(str, (q.shape[0], q.shape[1] // 2, *q.shape[2:])))
    return report.compare(
        f"{shape} {str(q.dtype).removeprefix('torch.')} {std} {which}",
        calls,
        rounds=rounds,
        moved_bytes=MOVED_TENSORS[which] * latent_bytes,
        copied_bytes=4 * latent_bytes,
    )


def parameters(size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Posterior and prior parameters (B, 2C, size, size) that want gradients."""
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH, 2 * Z_CHANNELS, size, size)
    q, p = (0.5 * torch.randn(shape, generator=generator) for _ in range(2))
    return q.to(dtype).requires_grad_(), p.to(dtype).requires_grad_()


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


def draws(std: StdForm) -> dict[str, Draw]:
    """The variants: each gives z (B, C, H, W) and the KL (B,) from q and p."""
    plain = _softplus_draw if std == "softplus" else _log_draw
    compiled = torch.compile(plain, dynamic=False)
    rng = ops.make_rng(0)

    def eager(q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        return plain(q, p, torch.randn_like(q[:, :Z_CHANNELS]))

    def compile_(q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        return compiled(q, p, torch.randn_like(q[:, :Z_CHANNELS]))

    def fused(q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        z, kl, _ = ops.gaussian_latent(q, p, rng=rng, std=std, floor=FLOOR)
        return z, kl

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
