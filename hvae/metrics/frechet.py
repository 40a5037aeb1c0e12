"""The Frechet distance between Gaussians fitted to two sets of features: FID for any extractor.

    |m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2)

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium"
(arXiv 1706.08500), equation 6. A root of the product itself, a matrix that is not symmetric, needs
a general eigenvalue solver or an iteration, which are slow, and give complex numbers where a
covariance is nearly singular. With any factors S = F F^T, the eigenvalues of S_a S_b are those of
the symmetric F_b^T S_a F_b, and their roots the singular values of F_a^T F_b.
"""

import math

import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics.checks import feature_pair
from hvae.metrics.moments import Statistics, cholesky_factor, statistics

# Rounding makes eigenvalues of about -1e-15 of the largest; this is far beyond.
_MOST_NEGATIVE = 1e-6
_BLOCK = 256


def frechet_distance(fake: Statistics, real: Statistics) -> float:
    """Returns the distance, at least 0, from means and covariances; symmetric up to rounding.

    One covariance is factored, that of the reals unless only the fakes have their factor: comparing
    many sets with one, call `Statistics.factored` on that one first. Computed on the device of the
    fakes, in float64. Slower where a set has no more images than features.

    Raises:
        ValueError: the widths differ.
        UserError: a covariance is not positive semi-definite, or the distance not finite.
    """
    if fake.dim != real.dim:
        raise ValueError(f"wanted statistics of one width, got fake {fake.dim}, real {real.dim}")
    real = real.to(fake.mean.device)
    if min(fake.count, real.count) <= fake.dim:
        root = _root_trace(_factor(fake), _factor(real))
    elif real.cholesky is None and fake.cholesky is not None:
        root = _root_trace_of_product(fake.cholesky, real.cov)
    else:
        root = _root_trace_of_product(_factor(real), fake.cov)
    return _distance(fake.mean - real.mean, fake.cov.trace() + real.cov.trace(), root)


def frechet_from_features(fake: Tensor, real: Tensor) -> float:
    """Returns the distance, at least 0, from features (N, d) and (M, d).

    The same as from their statistics, and faster where a set has no more images than features: its
    centred rows are a factor of its covariance.

    Raises:
        ValueError: they are no matrices of floating numbers of one width.
        UserError: a set has less than two rows, or one is not finite.
    """
    fake, real = feature_pair(fake, real)
    if min(len(fake), len(real)) > fake.shape[1]:
        return frechet_distance(statistics(fake), statistics(real))
    a, b = _factor_of_features(fake), _factor_of_features(real)
    traces = a.square().sum() + b.square().sum()
    return _distance(fake.mean(0) - real.mean(0), traces, _root_trace(a, b))


def _factor(known: Statistics) -> Tensor:
    """F (d, r) with F F^T the covariance, r its rank where that is below d for want of images."""
    if known.cholesky is not None:
        return known.cholesky
    if known.count > known.dim:
        return cholesky_factor(known.cov)
    # The other eigenvalues are 0, and the roots of what rounding makes of them would add up.
    values, vectors = torch.linalg.eigh(known.cov)
    rank = known.count - 1
    factor: Tensor = vectors[:, -rank:] * _roots(values)[-rank:]
    return factor


def _factor_of_features(x: Tensor) -> Tensor:
    """The same for features (N, d)."""
    if len(x) > x.shape[1]:
        return _factor(statistics(x))
    return (x - x.mean(0)).T / math.sqrt(len(x) - 1)


def _root_trace(factor_a: Tensor, factor_b: Tensor) -> Tensor:
    """The trace of (S_a S_b)^(1/2) from factors of both: accurate for any rank."""
    singular: Tensor = torch.linalg.svdvals(factor_a.T @ factor_b)
    return singular.sum()


def _root_trace_of_product(factor_a: Tensor, cov_b: Tensor) -> Tensor:
    """The same from a triangular factor and a covariance, in a third of the time at full rank."""
    return _roots(torch.linalg.eigvalsh(_congruent(factor_a, cov_b))).sum()


def _congruent(lower: Tensor, symmetric: Tensor) -> Tensor:
    """The lower triangle of L^T S L (d, d), block by block of columns.

    What L has above its diagonal is left out of every product, which is then a third of the work.
    """
    product = torch.zeros_like(symmetric)
    for start in range(0, len(lower), _BLOCK):
        columns = slice(start, start + _BLOCK)
        corner, block = lower[start:, start:], lower[start:, columns]
        product[start:, columns] = corner.T @ (symmetric[start:, start:] @ block)
    return product


def _roots(eigenvalues: Tensor) -> Tensor:
    """Square roots of the ascending eigenvalues of a semi-definite matrix, rounding cleared."""
    least, largest = eigenvalues[0].item(), eigenvalues[-1].item()
    if least < -_MOST_NEGATIVE * abs(largest):
        raise UserError(
            f"a covariance of features has a negative eigenvalue ({least / abs(largest):.1e} of "
            "the largest), so it is none; make the statistics anew"
        )
    return eigenvalues.clamp(min=0).sqrt()


def _distance(apart: Tensor, traces: Tensor, root: Tensor) -> float:
    distance = (apart.square().sum() + traces - 2 * root).item()
    if not math.isfinite(distance):
        raise UserError("features are too large to be compared: their distance overflows float64")
    return max(0.0, distance)
