"""Blocks compiled one kind at a time: the compiler sees a block, not the ladder."""

from typing import Any

import torch

# One kind is a resolution's size, kernel and options; a compiler that gave up after its usual
# eight would leave the finest levels, which cost most, to run eagerly.
_MOST_KINDS = 64


def call(block: Any, *args: Any, **kwargs: Any) -> Any:
    """Returns `block(*args)`."""
    return block(*args, **kwargs)


def compiled_call() -> Any:
    """Returns `call` as blocks of all kinds share its compiled forms."""
    limits: Any = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, _MOST_KINDS)
    return torch.compile(call)
