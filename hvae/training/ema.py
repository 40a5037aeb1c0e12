"""Exponential moving average of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hvae.training.sharding import fill, is_cut, part


class Ema:
    """Averages a model's parameters, in their own dtype.

    The decay warms up as min(decay, (1 + n) / (10 + n)) over the updates n, so that early averages
    are not the random start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.tensors = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average toward the model's current parameters."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages = [part(tensor) for tensor in self.tensors.values()]
        torch._foreach_lerp_(averages, [part(p) for p in model.parameters()], 1 - decay)
        self.updates += 1

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Lends the averaged weights to the model inside this context."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    def _swap(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if is_cut(parameter):  # FSDP gathers weights from the memory it knows
                held, average = part(parameter.data), part(self.tensors[name])
                kept = held.clone()
                held.copy_(average)
                average.copy_(kept)
            else:
                parameter.data, self.tensors[name] = self.tensors[name], parameter.data

    def load(self, tensors: dict[str, Tensor], updates: int) -> None:
        """Restores a saved average."""
        for name, tensor in tensors.items():
            fill(self.tensors[name], tensor)
        self.updates = updates
