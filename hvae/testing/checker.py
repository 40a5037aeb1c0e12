"""Checks that every op has to pass: against its reference in float64, and against torch's tools.

Gradients are compared as vectors: tolerances on single elements either hide a bias or trip over
rounding. Tolerances are fixed here for each dtype, and by nothing else.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hvae import ops
from hvae.testing.case import OpCase, OpResult
from hvae.testing.memory import poisoned_memory


@dataclass(frozen=True)
class Tolerance:
    """How far a tensor may lie from its float64 reference.

    Attributes:
        relative: L2 norm of the error by that of the reference.
        bias: mean error by the root mean square of the reference, beyond what the chance signs of
            N independent errors leave, relative / sqrt(N).
        angle: 1 - cosine.
    """

    relative: float
    bias: float
    angle: float = 1e-4


# By the dtype of the tensor compared. Half precision has one rounding of the result, since
# arithmetic is in float32: at most 2**-8 for bfloat16, 2**-11 for float16.
TOLERANCES = {
    torch.float64: Tolerance(relative=1e-12, bias=1e-13),
    torch.float32: Tolerance(relative=2e-6, bias=2e-7),
    torch.float16: Tolerance(relative=6e-4, bias=3e-5),
    torch.bfloat16: Tolerance(relative=4e-3, bias=2e-4),
}


# How many of an op's integers, drawn in float32, may be others than the reference's in float64:
# those whose draw falls so near a threshold that rounding decides. By more than 1 only where
# another component is picked.
DIFFERENT_DRAWS = 1e-3


def check_op(case: OpCase, *, compiled: bool = False) -> None:
    """Run every check on a small case; `compiled` adds `torch.compile`, which takes seconds.

    Raises:
        AssertionError: a check fails; the message names the case, the tensor and the figures.
    """
    for dtype in TOLERANCES:
        check_against_reference(case, dtype=dtype)
    for layout in ("channels_last", "strided", "channel_block", "channels_last_block"):
        check_against_reference(case, layout=layout)
    if case.differentiable:
        check_derivatives(case)
    check_registration(case)
    check_repeatable(case)
    if compiled:
        check_compiled(case)


def check_against_reference(
    case: OpCase,
    *,
    dtype: torch.dtype = torch.float32,
    layout: str = "contiguous",
    device: str = "cpu",
) -> None:
    """Compare outputs and gradients of the op with those of its reference in float64.

    Both get the same inputs, rounded to `dtype`, and the same cotangents. The reference's gradients
    come from autograd, not from the op's own formulas.
    """
    with poisoned_memory():
        actual = case.prepared(dtype, layout, device).run()
    exact = case.prepared(dtype, device=device).prepared(torch.float64, device=device)
    with ops.reference():
        expected = exact.run([cotangent.double() for cotangent in actual.cotangents])
    label = f"{case.label} {dtype} {layout} {device}"
    for name, got, wanted in _paired(actual, expected):
        if got.is_floating_point():
            roundings = 1 if name.startswith("output") else case.gradient_roundings
            _assert_near(f"{label}: {name}", got, wanted, _after(roundings, got.dtype))
        else:
            _assert_same_draws(f"{label}: {name}", got, wanted, exact=dtype == torch.float64)


def check_derivatives(case: OpCase) -> None:
    """Compare the op's gradients, and the reference's second derivatives, with differences.

    Fast mode compares one random projection of each Jacobian; `check_against_reference` has already
    seen every element of the gradients.
    """
    case = case.prepared(torch.float64)
    inputs = [case.inputs[name].clone().requires_grad_() for name in case.differentiable]

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        return case.call({**case.inputs, **dict(zip(case.differentiable, tensors, strict=True))})

    assert torch.autograd.gradcheck(call, inputs, fast_mode=True), case.label
    with ops.reference():
        assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True), case.label


def check_registration(
    case: OpCase, layouts: Iterable[str] = ("contiguous", "channels_last")
) -> None:
    """Run the four tests of `torch.library.opcheck` on each op that the case calls."""
    for layout in layouts:
        with _Recorder() as recorder:
            case.prepared(torch.float32, layout).run()
        assert recorder.calls, f"{case.label} calls no op of hvae"
        for op, args in recorder.calls:
            torch.library.opcheck(op, args)


def check_repeatable(case: OpCase, threads: Sequence[int] = (1, 2, 3)) -> None:
    """Check that results are the same to the bit, run again and for each number of threads."""
    case = case.prepared(torch.float32)
    first = case.run()
    before = torch.get_num_threads()
    try:
        for count in (before, *threads):
            torch.set_num_threads(count)
            for name, got, wanted in _paired(case.run(first.cotangents), first):
                assert torch.equal(got, wanted), f"{case.label}: {name} with {count} threads"
    finally:
        torch.set_num_threads(before)


def check_compiled(case: OpCase) -> None:
    """Check that `torch.compile(fullgraph=True)` gives the results of eager mode."""
    eager = case.prepared(torch.float32)
    torch.compiler.reset()
    call = torch.compile(case.call, fullgraph=True)
    compiled = OpCase(case.label, call, eager.inputs, case.differentiable)
    wanted = eager.run()
    for name, got, expected in _paired(compiled.run(wanted.cotangents), wanted):
        label = f"{case.label} compiled: {name}"
        if got.is_floating_point():
            _assert_near(label, got, expected.double(), TOLERANCES[got.dtype])
        else:
            assert torch.equal(got, expected), label


def _paired(actual: OpResult, expected: OpResult) -> Iterator[tuple[str, Tensor, Tensor]]:
    for index, (got, wanted) in enumerate(zip(actual.outputs, expected.outputs, strict=True)):
        yield f"output {index}", got, wanted
    for name, got in actual.gradients.items():
        yield f"gradient of {name}", got, expected.gradients[name]


def _after(roundings: int, dtype: torch.dtype) -> Tolerance:
    """The tolerance of a result that is rounded so often; wider types lose nothing by it."""
    once = TOLERANCES[dtype]
    if dtype not in (torch.bfloat16, torch.float16):
        return once
    return replace(once, relative=roundings * once.relative, bias=roundings * once.bias)


def _assert_near(label: str, got: Tensor, wanted: Tensor, tolerance: Tolerance) -> None:
    assert got.shape == wanted.shape, (
        f"{label}: wanted {tuple(wanted.shape)}, got {tuple(got.shape)}"
    )
    if got.numel() == 0:
        return
    a, b = got.double().flatten(), wanted.double().flatten()
    error, scale, root = a - b, float(b.norm()), math.sqrt(b.numel())
    if scale == 0:
        assert not a.any(), f"{label}: wanted zeros, got values to {float(a.abs().max()):.3g}"
        return
    relative = float(error.norm()) / scale
    bias = abs(float(error.mean())) / (scale / root)
    angle = 1 - float(a @ b) / max(float(a.norm()) * scale, torch.finfo(torch.float64).tiny)
    # Negated so that a NaN fails.
    if not (
        relative <= tolerance.relative
        and bias <= tolerance.bias + tolerance.relative / root
        and angle <= tolerance.angle
    ):
        raise AssertionError(
            f"{label}: relative error {relative:.3g}, bias {bias:.3g}, 1 - cosine {angle:.3g} "
            f"for {tolerance}"
        )


def _assert_same_draws(label: str, got: Tensor, wanted: Tensor, *, exact: bool) -> None:
    assert got.shape == wanted.shape, (
        f"{label}: wanted {tuple(wanted.shape)}, got {tuple(got.shape)}"
    )
    by = (got.long() - wanted.long()).abs()
    different = int((by > (0 if exact else 1)).sum())
    allowed = 0 if exact else math.ceil(DIFFERENT_DRAWS * got.numel())
    assert different <= allowed, (
        f"{label}: {different} of {got.numel()} draws differ, by up to {int(by.max())}"
    )


class _Recorder(TorchDispatchMode):
    """Collects the hvae ops that run inside, with copies of their arguments."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "hvae":
            differentiable = not func._opname.endswith("_bwd")
            self.calls.append((func, tuple(_copy(arg, differentiable) for arg in args)))
        return func(*args, **(kwargs or {}))


def _copy(argument: Any, differentiable: bool) -> Any:
    if not isinstance(argument, Tensor):
        return argument
    return argument.detach().clone().requires_grad_(differentiable and argument.requires_grad)
