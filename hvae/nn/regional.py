"""Bottlenecks compiled one kind at a time: the compiler sees what repeats, not the ladder.

A whole latent group would be compiled once per group: the number of its noise stream is a constant
of its graph.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

Call: TypeAlias = Callable[..., Any]

# One kind is a level's size, kernel, channels and options; a compiler that gave up after its usual
# eight would leave the finest levels, which cost most, to run eagerly.
_MOST_KINDS = 64


def call(function: Call, *args: Any) -> Any:
    """Returns `function(*args)`."""
    return function(*args)


def compiled_call() -> Call:
    """Returns `call`, compiled; functions and modules of all kinds share its compiled forms."""
    limits: Any = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, _MOST_KINDS)
    return torch.compile(call)
