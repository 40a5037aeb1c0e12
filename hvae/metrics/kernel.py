"""The kernel distance between two sets of features: KID for any extractor."""

from typing import NamedTuple

import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics.checks import feature_pair
from hvae.metrics.draws import permutation
from hvae.ops.philox import derive_seed


class KernelEstimate(NamedTuple):
    """Squared maximum mean discrepancies of subsets, not times 1000."""

    mean: float
    """Over subsets: unbiased, so it may be negative where sets hardly differ."""

    sd: float
    """Standard deviation over subsets (divided by their number), not of the mean."""


def kernel_distance(
    fake: Tensor, real: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> KernelEstimate:
    """Returns the mean and spread of `squared_mmd` over random subsets of both sets.

    Binkowski et al., "Demystifying MMD GANs" (arXiv 1801.01401), section 4. Each subset is drawn
    without replacement; the same seed draws the same ones on every device. Computed on the device
    of the fakes, in float64.

    Args:
        fake: (N, d) features.
        real: (M, d) features.
        subsets: how many.
        subset_size: images of each subset; N or M where that is less. With all of both, every
            subset is the same and `sd` tells nothing.
        seed: of the subsets.

    Raises:
        ValueError: they are no matrices of floating numbers of one width.
        UserError: a set has less than two rows, or one is not finite; a number is too small.
    """
    if subsets < 1 or subset_size < 2:
        raise UserError(
            f"wanted at least 1 subset of at least 2 images, got {subsets} of {subset_size}"
        )
    fake, real = feature_pair(fake, real)
    size = min(subset_size, len(fake), len(real))
    draw_seed = derive_seed(seed, "kernel-distance")
    distances = []
    for index in range(subsets):
        x, y = (
            features[
                permutation(draw_seed, len(features), stream=stream, index=index)[:size].to(
                    features.device
                )
            ]
            for stream, features in enumerate((fake, real))
        )
        distances.append(squared_mmd(x, y))
    values = torch.stack(distances)
    return KernelEstimate(values.mean().item(), values.std(correction=0).item())


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Returns the unbiased estimate of the squared maximum mean discrepancy, a scalar.

        mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

    with the kernel k(a, b) = (a . b / d + 1)^3. Gretton et al., "A Kernel Two-Sample Test" (JMLR
    2012), equation 3.

    Args:
        x: (N, d), N at least 2.
        y: (M, d), M at least 2, of the dtype of `x`.
    """
    return _mean_within(x) + _mean_within(y) - 2 * _kernel(x, y).mean()


def _mean_within(x: Tensor) -> Tensor:
    """The mean of the kernel over pairs of different rows."""
    kernel = _kernel(x, x)
    return (kernel.sum() - kernel.trace()) / (len(x) * (len(x) - 1))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3
