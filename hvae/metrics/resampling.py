"""How far a score would move with other fakes: resampling those there are."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics.draws import with_replacement
from hvae.ops.philox import derive_seed


class Interval(NamedTuple):
    """Percentiles of a score over resamples."""

    low: float
    high: float


def bootstrap(
    metric: Callable[[Tensor], float],
    fake: Tensor,
    *,
    resamples: int = 5,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Returns the percentile interval of a score over resamples of the fakes with replacement.

    The reference stays as `metric` holds it, for instance

        bootstrap(lambda fake: frechet_distance(statistics(fake), real.factored()), fake)

    Percentiles are interpolated: with few resamples the interval hardly goes beyond their extremes,
    and covers less than `level`. A resample holds fewer different images than the set, so a score
    that is biased by their number, as the Frechet distance, comes out too high: its interval may
    lie above its value, and is to be read by its width.

    Args:
        metric: from (N, ...) fakes to a score.
        fake: (N, ...), rows to draw from, on any device.
        resamples: how many, at least 2.
        level: share of the resamples' distribution inside the interval.
        seed: of the draws, which are the same on every device.

    Raises:
        UserError: there are no fakes, `resamples` is below 2, or `level` is not between 0 and 1.
    """
    if len(fake) == 0:
        raise UserError("wanted at least 1 fake image to resample, got 0")
    if resamples < 2 or not 0 < level < 1:
        raise UserError(
            f"wanted at least 2 resamples and a level between 0 and 1, got {resamples} and {level}"
        )
    draw_seed = derive_seed(seed, "bootstrap")
    scores = [
        metric(fake[with_replacement(draw_seed, len(fake), index=index).to(fake.device)])
        for index in range(resamples)
    ]
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.tensor(scores, dtype=torch.float64).quantile(tails).tolist()
    return Interval(low, high)
