"""What the forward pass keeps for the backward, and what the backward computes again.

A ladder is cut into runs of adjacent blocks of one resolution. A run that recomputes keeps what
enters it and the results of some of its convolutions; the backward runs it again to get the rest.
Noise is a function of (seed, example, group), so the second pass draws what the first drew, and
gradients are the same bit for bit.

    level        keeps of a run, beside what enters it     computes again
    none         all that autograd asks for                nothing
    elementwise  convolutions that do not widen            non-linearities, sums, widening 1x1s
    pointwise    convolutions of more than one pixel       also the other 1x1 convolutions
    block        nothing                                   the whole run

Convolutions of more than one pixel are two thirds of the arithmetic of a block and a quarter of
its maps: keeping their results alone buys most of the memory for little time.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar, TypeVarTuple, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

Level = Literal["none", "elementwise", "pointwise", "block"]

LEVELS: tuple[Level, ...] = ("none", "elementwise", "pointwise", "block")

# Blocks per run. What enters a block can be told from what entered the one before it and from the
# kept convolutions, so pairs of blocks keep one state less. Longer runs win little more, and the
# backward holds all maps of a run at once.
_RUN_LENGTH: Mapping[Level, int] = {"none": 1, "elementwise": 2, "pointwise": 2, "block": 1}

Ts = TypeVarTuple("Ts")
R = TypeVar("R")


@dataclass(frozen=True)
class Recompute:
    """The levels of a model, by resolution; those not named keep everything.

    name     meaning
    encoder  levels of the way up
    decoder  levels of the way down
    head     bands of rows that the head and the likelihood are computed in, again in the backward,
             so that head outputs of all pixels never exist at once; 0: computed once, and kept
    """

    encoder: Mapping[int, Level] = field(default_factory=dict)
    decoder: Mapping[int, Level] = field(default_factory=dict)
    head: int = 0


def runs(resolutions: list[int], levels: Mapping[int, Level], cuts: set[int]) -> list[range]:
    """Returns the blocks of a ladder as runs of adjacent ones that are recomputed together.

    Args:
        resolutions: of the blocks, in their order.
        levels: by resolution.
        cuts: blocks that begin a run whatever comes before them.
    """
    result: list[range] = []
    for block, resolution in enumerate(resolutions):
        last = result[-1] if result else range(0)
        length = _RUN_LENGTH[levels.get(resolution, "none")]
        if 0 < len(last) < length and resolutions[last.start] == resolution and block not in cuts:
            result[-1] = range(last.start, block + 1)
        else:
            result.append(range(block, block + 1))
    return result


def recomputed(level: Level, function: Callable[[*Ts], R], *args: *Ts) -> R:
    """Returns `function(*args)`, of which the backward keeps what the level says.

    The function must be pure: where gradients are needed it runs twice.
    """
    if level == "none" or not torch.is_grad_enabled():
        return function(*args)
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if level != "block":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _POLICIES[level])
    return cast(R, checkpoint(function, *args, **options))


def _keep_narrow(_: Any, op: Any, *args: Any, **__: Any) -> CheckpointPolicy:
    weight = _conv_weight(op, args)
    narrow = weight is not None and weight.shape[0] <= weight.shape[1]
    return _KEEP if narrow else _AGAIN


def _keep_spatial(_: Any, op: Any, *args: Any, **__: Any) -> CheckpointPolicy:
    weight = _conv_weight(op, args)
    return _KEEP if weight is not None and math.prod(weight.shape[2:]) > 1 else _AGAIN


def _conv_weight(op: Any, args: tuple[Any, ...]) -> Tensor | None:
    return args[1] if op is torch.ops.aten.convolution.default else None


_KEEP, _AGAIN = CheckpointPolicy.MUST_SAVE, CheckpointPolicy.PREFER_RECOMPUTE
_POLICIES: Mapping[Level, Callable[..., CheckpointPolicy]] = {
    "elementwise": _keep_narrow,
    "pointwise": _keep_spatial,
}
