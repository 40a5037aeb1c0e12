"""Densities of the latent Gaussians, for estimators that need them at a given sample."""

from torch import Tensor

from hvae.ops.gaussian import StdForm, parameters_of, std_code, std_of


def log_density_ratio(z: Tensor, q: Tensor, p: Tensor, std: StdForm, floor: float) -> Tensor:
    """Returns ln p(z) - ln q(z) per example in nats, float64 (N,).

    Args:
        z: (N, Z, *S) the sample.
        q: (N, 2Z, *S) posterior means and raw standard deviations.
        p: (N, 2Z + W, *S) the prior's, then channels that are ignored.
        std: parameterisation of the standard deviation, see `hvae.ops.gaussian_latent`.
        floor: its floor.

    Formula: sum of ln(std_q / std_p) + ((z - mean_q) / std_q)^2 / 2 - ((z - mean_p) / std_p)^2 / 2.
    """
    mean_q, raw_q = parameters_of(q.double(), z.shape[1])
    mean_p, raw_p = parameters_of(p.double(), z.shape[1])
    std_q = std_of(raw_q, std_code(std), floor)
    std_p = std_of(raw_p, std_code(std), floor)
    excess = ((z - mean_q) / std_q).square() - ((z - mean_p) / std_p).square()
    return (std_q.log() - std_p.log() + excess / 2).flatten(1).sum(1)
