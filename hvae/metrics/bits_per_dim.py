"""Bits per dimension, accumulated over batches and ranks."""

from typing import Any

from torch import Tensor

from hvae.metrics.base import Float64Metric
from hvae.metrics.likelihood import nats_to_bits_per_dim


class BitsPerDim(Float64Metric):
    """Mean bits per dimension of all examples seen; every example counts once.

    Batches may differ in size: examples are averaged, not batches.

        name      default  meaning
        num_dims  -        data dimensions of one example, such as 3 * 32 * 32

    >>> import torch
    >>> metric = BitsPerDim(num_dims=2)
    >>> metric.update(torch.log(torch.tensor([0.25, 0.0625])))
    >>> metric.compute()
    tensor(1.5000, dtype=torch.float64)
    """

    higher_is_better = False

    nats: Tensor
    count: Tensor

    def __init__(self, num_dims: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_dims < 1:
            raise ValueError(f"num_dims must be at least 1, got {num_dims}")
        self.num_dims = num_dims
        self.add_sum("nats")
        self.add_sum("count")

    def update(self, log_prob: Tensor) -> None:
        """Adds examples.

        Args:
            log_prob: (N,) log-probability of each, or a bound on it such as `Elbo.elbo`, nats.
        """
        if log_prob.ndim != 1:
            raise ValueError(f"wanted log_prob of shape (N,), got {tuple(log_prob.shape)}")
        self.nats += log_prob.detach().to(self.nats).sum()
        self.count += len(log_prob)

    def compute(self) -> Tensor:
        """Returns the mean over all examples, a float64 scalar; NaN before the first one."""
        return nats_to_bits_per_dim(self.nats / self.count, self.num_dims)
