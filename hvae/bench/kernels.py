"""All fused ops: what `hvae bench kernels` runs, and on which shapes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from hvae import _native
from hvae.bench import gaussian_latent, logistic_mixture
from hvae.bench.case import Case, Shape, compare
from hvae.bench.measure import Meter, one_thread
from hvae.bench.record import Comparison
from hvae.errors import UserError

Shapes = Mapping[str, Sequence[Shape]]


@dataclass(frozen=True)
class Op:
    """A fused op: its cases by shape, dtype and device, and the shapes it is measured on."""

    cases: Callable[[Shape, torch.dtype, str], Iterator[Case]]
    shapes: Sequence[Shape]
    cuda_shapes: Sequence[Shape]
    channels: Sequence[int] = ()  # the second size of a shape, if not any


OPS = {
    "gaussian_latent": Op(
        gaussian_latent.cases, gaussian_latent.SHAPES, gaussian_latent.CUDA_SHAPES
    ),
    "logistic_mixture_nll": Op(
        logistic_mixture.nll_cases,
        logistic_mixture.SHAPES,
        logistic_mixture.CUDA_SHAPES,
        channels=(1, 3),
    ),
    "logistic_mixture_sample": Op(
        logistic_mixture.sample_cases,
        logistic_mixture.SHAPES,
        logistic_mixture.CUDA_SHAPES,
        channels=(1, 3),
    ),
}


def default_shapes(device: str) -> Shapes:
    """Shapes by op: the largest on a CPU; on CUDA also small maps, where launches are the point."""
    if device == "cpu":
        return {name: op.shapes[:1] for name, op in OPS.items()}
    return {name: op.cuda_shapes for name, op in OPS.items()}


def all_shapes(ops: Sequence[str], device: str) -> Shapes:
    """Every shape that some ops are measured on."""
    return {name: OPS[name].shapes if device == "cpu" else OPS[name].cuda_shapes for name in ops}


def parse_shapes(texts: Sequence[str]) -> Shapes:
    """Returns shapes by op from `[OP:]NxCxHxW`; without OP the shape is gaussian_latent's.

    Raises:
        UserError: a text is none.
    """
    shapes: dict[str, list[Shape]] = {}
    for text in texts:
        name, _, sizes = text.rpartition(":")
        name = name or "gaussian_latent"
        if name not in OPS:
            raise UserError(f"--shape: wanted an op of {', '.join(OPS)}; got {name}")
        numbers = [int(size) if size.isdecimal() else 0 for size in sizes.split("x")]
        if len(numbers) != 4 or min(numbers) < 1:
            raise UserError(f"--shape: wanted [OP:]NxCxHxW such as 32x16x64x64, got {text}")
        batch, channels, height, width = numbers
        if OPS[name].channels and channels not in OPS[name].channels:
            raise UserError(f"--shape: {name} wants 1 or 3 colours, got {channels} in {text}")
        shapes.setdefault(name, []).append((batch, channels, height, width))
    return shapes


def run(
    meter: Meter, dtypes: Sequence[torch.dtype], shapes: Shapes, rounds: int = 15
) -> Iterator[Comparison]:
    """Check each op, then measure it; on a CPU on one thread.

    Raises:
        UserError: the kernels are not loaded, so there is nothing to measure.
        AssertionError: an op fails its check; no figure is given for it.
    """
    status = _native.status()
    if not status.loaded:
        raise UserError(f"there is no fused op to measure: {status.reason}")
    with one_thread():
        for name, of_op in shapes.items():
            for shape in of_op:
                for dtype in dtypes:
                    # Graphs of other shapes would count against the compiler's limit.
                    torch.compiler.reset()
                    for case in OPS[name].cases(shape, dtype, meter.device):
                        yield compare(case, meter, rounds)
