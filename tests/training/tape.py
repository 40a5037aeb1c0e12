"""A CUDA graph's strictness without a GPU: the operations of a call, repeated to the letter.

What a graph bakes in, a tape bakes in too: numbers, shapes, and which memory an operation reads
and writes. What a graph cannot hold is refused: a number read by the host, a tensor made from
numbers of the host.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_ASKS_THE_HOST = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.lift_fresh.default,
    torch.ops.aten.nonzero.default,
}


class Tape(TorchDispatchMode):
    """A `hvae.training.cuda_graph.Graph` on any device."""

    def __init__(self) -> None:
        super().__init__()
        self.played: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Any]]] = []

    def record(self, run: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        with self:
            results = run()
        for _, args, kwargs, made in self.played:  # what a graph computes exists after a replay
            given = {_memory(leaf) for leaf in tree_leaves((args, kwargs)) if _is_tensor(leaf)}
            for tensor in made:
                if tensor.is_floating_point() and _memory(tensor) not in given:
                    tensor.detach().fill_(torch.nan)
        return results

    def replay(self) -> None:
        with torch.no_grad():
            for op, args, kwargs, made in self.played:
                again = [leaf for leaf in tree_leaves(op(*args, **kwargs)) if _is_tensor(leaf)]
                for held, fresh in zip(made, again, strict=True):
                    if held.data_ptr() != fresh.data_ptr():
                        held.copy_(fresh)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _ASKS_THE_HOST:
            raise RuntimeError(f"{func} waits for the device")
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if _is_tensor(leaf)]
        self.played.append((func, args, kwargs or {}, made))
        return result


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
