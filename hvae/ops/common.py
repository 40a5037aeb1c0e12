"""What every op file shares: defining an op, the switch to the references, dtype and layout."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

LIBRARY = torch.library.Library("hvae", "FRAGMENT")


class _Switch(threading.local):
    # Not a ContextVar, which torch.compile cannot trace; set per thread in __init__, since a class
    # attribute would escape its guards.
    def __init__(self) -> None:
        self.reference = False


_switch = _Switch()


@contextmanager
def reference() -> Iterator[None]:
    """Run the pure-PyTorch references of all `hvae.ops` inside this context.

    They are slower and take more memory than the kernels, but autograd sees through them: they are
    differentiable twice, and with respect to `eps`. The switch is local to the thread and works
    inside and around `torch.compile`.
    """
    outer = _switch.reference
    _switch.reference = True
    try:
        yield
    finally:
        _switch.reference = outer


def reference_forced() -> bool:
    """Whether the caller runs inside `reference()`."""
    return _switch.reference


def define_op(schema: str, implementation: Callable[..., Any]) -> None:
    """Define op `hvae::<schema>` with its pure-PyTorch reference as the default implementation.

    CompositeExplicitAutograd makes the reference serve every backend without a compiled kernel,
    meta and fake tensors included, so that shapes and layouts of the two cannot drift apart.
    """
    name = schema.partition("(")[0]
    LIBRARY.define(schema, tags=torch.Tag.pt2_compliant_tag)
    LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")


def differentiate(
    name: str,
    formula: Callable[..., Any],
    setup_context: Callable[..., None],
    public_name: str | None = None,
) -> None:
    """Register the first derivative of op `name`, whose backward is the op `<name>_bwd`.

    The formula calls `<name>_bwd`; that op has no derivative and says so when one is asked for,
    where the default would be a gradient that is silently cut. `public_name` is the function that
    callers know, if the op is named otherwise.
    """

    def refuse(ctx: Any, *grads: Tensor | None) -> None:
        raise NotImplementedError(
            f"hvae.ops.{public_name or name} is differentiable once, but a second derivative was "
            "asked for; run the forward inside `with hvae.ops.reference():`, which is "
            "differentiable twice"
        )

    torch.library.register_autograd(
        f"hvae::{name}", formula, setup_context=setup_context, lib=LIBRARY
    )
    torch.library.register_autograd(f"hvae::{name}_bwd", refuse, lib=LIBRARY)


def refuse_gradient(name: str, argument: str, needed: bool) -> None:
    """Raise NotImplementedError if a gradient that op `name` does not compute is `needed`."""
    if needed:
        raise NotImplementedError(
            f"hvae.ops.{name} computes no gradient for {argument}, which requires one; "
            f"detach {argument}, or run inside `with hvae.ops.reference():`"
        )


def arithmetic_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype an op computes and sums in: float64 for float64, float32 for all narrower ones."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def layout_of(tensor: Tensor) -> torch.memory_format:
    """The layout that outputs follow: channels-last where `tensor` has it, otherwise contiguous."""
    channels_last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.dim())
    if channels_last is None or tensor.is_contiguous():
        return torch.contiguous_format
    if tensor.is_contiguous(memory_format=channels_last):
        return channels_last
    return torch.contiguous_format
