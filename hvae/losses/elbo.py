"""The objective: -ELBO, with a KL weight that warms up and a KL that is free at first."""

from torch import Tensor

from hvae.models import Elbo


def objective(elbo: Elbo, num_dims: int, *, beta: float = 1.0, free_bits: float = 0.0) -> Tensor:
    """Returns nll + sum over groups of max(free_bits, beta KL), nats per data dimension, scalar.

    KL is averaged over the batch before the maximum, so that a group counts as a whole (Kingma et
    al., arXiv 1606.04934, section C.8). With beta 1 and free_bits 0 this is -ELBO exactly.

    Args:
        elbo: of a batch.
        num_dims: data dimensions of an example.
        beta: weight of the KL.
        free_bits: nats of each group that cost nothing.
    """
    kl = (beta * elbo.kl.mean(0)).clamp(min=free_bits).sum()
    return (elbo.nll.mean() + kl) / num_dims
