"""The Frechet distance of infinitely many fakes, extrapolated from finite numbers of them."""

from typing import NamedTuple

import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics.checks import feature_matrix
from hvae.metrics.draws import permutation
from hvae.metrics.frechet import frechet_distance
from hvae.metrics.moments import Moments, Statistics
from hvae.ops.philox import derive_seed

_LEAST = 5000


class Extrapolation(NamedTuple):
    """The intercept of a line through distances at several sizes."""

    value: float
    """The distance at 1/N = 0; may be negative where sets hardly differ."""

    stderr: float
    """Its standard error: the scatter about the line, not that of other fakes."""


def frechet_infinity(
    fake: Tensor, real: Statistics, *, seed: int = 0, sizes: int = 15
) -> Extrapolation:
    """Returns the distance without the part of its bias that falls as 1/N.

    Chong and Forsyth, "Effectively Unbiased FID and Inception Score and Where to Find Them" (arXiv
    1911.07023), section 4: the distance at several sizes, a least-squares line in 1/N, its
    intercept. The subsets are nested, beginnings of one seeded order, so that all of them cost one
    pass over the features; the paper draws them apart.

    Args:
        fake: (N, d) features.
        real: statistics of the reals.
        seed: of the order.
        sizes: how many, see `subset_sizes`.

    Raises:
        ValueError: widths differ, or `fake` is no matrix of floating numbers.
        UserError: there are too few fakes, or too few sizes for a line; one is not finite.
    """
    x = feature_matrix(fake, "fake images")
    counts = subset_sizes(len(x), sizes)
    order = permutation(derive_seed(seed, "frechet-infinity"), len(x)).to(x.device)
    reference = real.to(x.device).factored()
    seen = Moments.empty(x.shape[1], x.device)
    distances = []
    for start, stop in zip([0, *counts], counts, strict=False):
        seen.update(x[order[start:stop]])
        distances.append(frechet_distance(seen.statistics(), reference))
    return intercept([1 / count for count in counts], distances)


def subset_sizes(count: int, sizes: int) -> list[int]:
    """Returns `sizes` evenly spaced numbers of fakes, the last one all of them.

    From the larger of 5000 and a tenth; from half of them where there are less than 10,000.

    Raises:
        UserError: `sizes` is below 3, or so large that two subsets would be the same.
    """
    if sizes < 3:
        raise UserError(f"wanted at least 3 sizes to extrapolate from, got {sizes}")
    least = max(min(_LEAST, count // 2), count // 10)
    if least < 2 or count - least < sizes - 1:
        raise UserError(
            f"wanted at least {2 * sizes} fake images for {sizes} sizes, got {count}; use more"
        )
    return [round(least + (count - least) * step / (sizes - 1)) for step in range(sizes)]


def intercept(x: list[float], y: list[float]) -> Extrapolation:
    """Returns where the least-squares line of y over x meets x = 0, with its standard error.

    stderr^2 = s^2 (1/n + mean(x)^2 / sum (x - mean(x))^2), s^2 = squared residuals / (n - 2).

    Args:
        x: at least three values, not all equal.
        y: as many.
    """
    at, values = (torch.tensor(v, dtype=torch.float64) for v in (x, y))
    centred = at - at.mean()
    spread = centred.square().sum()
    slope = centred @ values / spread
    value = values.mean() - slope * at.mean()
    variance = (values - value - slope * at).square().sum() / (len(x) - 2)
    stderr = (variance * (1 / len(x) + at.mean() ** 2 / spread)).sqrt()
    return Extrapolation(value.item(), stderr.item())
