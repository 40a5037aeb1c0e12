"""The base of accumulating metrics: torchmetrics' reduction over ranks, sums kept in float64."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hvae.metrics.torchmetrics_import import Metric


class Float64Metric(Metric):
    """A metric whose states keep their dtype whatever a parent module is cast to.

    `nn.Module.to(torch.bfloat16)` on a parent would otherwise round the sums of a whole data set to
    eight bits, without a word. States follow the metric to its device, except to MPS, which has no
    float64: they stay on the CPU then.
    """

    is_differentiable = False
    full_state_update = False

    @property
    def state_device(self) -> torch.device:
        """Where the states lie."""
        return torch.device("cpu") if self.device.type == "mps" else self.device

    def add_sum(self, name: str, *shape: int) -> None:
        """Registers a float64 state of zeros that adds up over batches and ranks."""
        self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ""
    ) -> nn.Module:
        """Moves states to the device `fn` moves to; lets no cast reach them."""
        self._computed = None  # a cached result would be cast
        super()._apply(fn, exclude_state=(*exclude_state, *self._defaults))
        for name in self._defaults:
            state = getattr(self, name)
            if isinstance(state, Tensor):
                setattr(self, name, state.to(self.state_device))
            else:
                setattr(self, name, [part.to(self.state_device) for part in state])
        return self
