"""The objective: -ELBO, with a KL weight that warms up and a KL that is free at first."""

from collections.abc import Callable

from torch import Tensor

from hvae.losses.kl_share import kl_share_weights
from hvae.models import Elbo


def objective(
    elbo: Elbo,
    num_dims: int,
    *,
    beta: float | Tensor = 1.0,
    free_bits: float | Tensor = 0.0,
    kl_share: bool = False,
    mean: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Returns nll + sum over groups of max(free_bits, beta KL), nats per data dimension, scalar.

    KL is averaged over the batch before the maximum, so that a group counts as a whole (Kingma et
    al., arXiv 1606.04934, section C.8). With beta 1, free_bits 0 and no weights this is -ELBO
    exactly.

    Args:
        elbo: of a batch.
        num_dims: data dimensions of an example.
        beta: weight of the KL, a number or a scalar on the device.
        free_bits: nats of each group that cost nothing; alike.
        kl_share: weigh the KL of each image and group by `kl_share_weights` first.
        mean: of (N, ...) over a batch of which these are a part. None: they are all of it.
    """
    mean = mean or _mean
    kl = kl_share_weights(elbo.kl) * elbo.kl if kl_share else elbo.kl
    cost = (beta * mean(kl)).clamp(min=free_bits).sum()
    return (mean(elbo.nll) + cost) / num_dims


def _mean(values: Tensor) -> Tensor:
    return values.mean(0)
