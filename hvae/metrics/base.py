"""The base of accumulating metrics: torchmetrics' reduction over ranks, sums kept in float64."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

try:
    from torchmetrics import Metric
except ModuleNotFoundError as error:
    if error.name != "torchvision":
        raise
    # torchmetrics imports torch-fidelity wherever it finds one, and that needs torchvision.
    raise ImportError(
        "torchmetrics cannot be imported, because torch-fidelity is installed without "
        "torchvision: run `pip uninstall torch-fidelity`, or install torchvision"
    ) from error


class Float64Metric(Metric):
    """A metric whose sums stay float64 whatever a parent module is cast to.

    `nn.Module.to(torch.bfloat16)` on a parent would otherwise round the sums of a whole data set to
    eight bits, without a word.
    """

    is_differentiable = False
    full_state_update = False

    def add_sum(self, name: str, *shape: int) -> None:
        """Registers a float64 state of zeros that adds up over batches and ranks."""
        self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ""
    ) -> nn.Module:
        """Moves states to the device `fn` moves to; lets no cast reach them."""
        super()._apply(fn, exclude_state=(*exclude_state, *self._defaults))
        for name in self._defaults:
            setattr(self, name, getattr(self, name).to(self.device))
        return self
