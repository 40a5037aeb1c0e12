"""How much of the fakes is real, and of the reals covered, by nearest neighbours of features."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics.checks import feature_pair

MOST_POINTS = 10_000
"""Images of each kind that callers should take at most: scores depend on how many there are, and
published ones use no more."""

BLOCK_ROWS = 1024
"""Rows of distances held at once; with 10,000 points a block takes 82 MB."""


class PRDC(NamedTuple):
    """The four scores; precision and recall are means over points and lie in [0, 1]."""

    precision: float
    """Share of the fakes inside the ball of some real."""

    recall: float
    """Share of the reals inside the ball of some fake."""

    density: float
    """Balls of reals that a fake lies in, over k: about 1 for equal sets; may exceed 1."""

    coverage: float
    """Share of the reals whose ball holds some fake."""


def prdc(fake: Tensor, real: Tensor, *, k: int = 3, density_k: int = 5) -> PRDC:
    """Returns precision, recall, density and coverage of fakes from features.

    The ball of a point reaches, its border included, to its k-th nearest neighbour of its own kind,
    itself not counted. Precision and recall: Kynkaanniemi et al., "Improved Precision and Recall
    Metric for Assessing Generative Models" (arXiv 1904.06991), equations 1 and 2. Density and
    coverage: Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models" (arXiv
    2002.09797), equations 3 and 5.

    Every distance is computed once, in float64 on the device of the fakes, `BLOCK_ROWS` rows at a
    time; time grows as (N + M)^2 d. See `MOST_POINTS`; take as many fakes as reals.

    Args:
        fake: (N, d) features.
        real: (M, d) features.
        k: neighbours for precision and recall.
        density_k: neighbours for density and coverage.

    Raises:
        ValueError: they are no matrices of floating numbers of one width.
        UserError: a set has no more points than neighbours are wanted, or one is not finite.
    """
    fake, real = feature_pair(fake, real)
    _check_neighbours(k, len(fake), "fake")
    _check_neighbours(k, len(real), "real")
    _check_neighbours(density_k, len(real), "real")
    middle = real.mean(0)  # far from the origin, squared norms would cancel badly
    fake, real = fake - middle, real - middle
    (fake_radii,) = _radii(fake, k)
    real_radii, density_radii = _radii(real, k, density_k)

    inside, balls = 0, 0
    recalled = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    nearest = torch.full_like(density_radii, torch.inf)
    for rows, distances in _blocks(fake, real):
        inside += int((distances <= real_radii).any(1).sum())
        balls += int((distances <= density_radii).sum())
        recalled |= (distances <= fake_radii[rows, None]).any(0)
        nearest = torch.minimum(nearest, distances.amin(0))
    return PRDC(
        precision=inside / len(fake),
        recall=recalled.double().mean().item(),
        density=balls / (density_k * len(fake)),
        coverage=(nearest <= density_radii).double().mean().item(),
    )


def _check_neighbours(k: int, count: int, what: str) -> None:
    if not 1 <= k < count:
        raise UserError(
            f"wanted at least one neighbour and more {what} images than neighbours, "
            f"got k = {k} of {count}"
        )


def _radii(points: Tensor, *ks: int) -> tuple[Tensor, ...]:
    """Squared distance of each point (N, d) to its k-th nearest other, (N,) for each k."""
    found = []
    for rows, distances in _blocks(points, points):
        distances[:, rows].fill_diagonal_(torch.inf)
        found.append(distances.topk(max(ks), largest=False).values)
    nearest = torch.cat(found)
    return tuple(nearest[:, k - 1] for k in ks)


def _blocks(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of x, and their squared distances (rows, M) to all of y."""
    y_norms = y.square().sum(1)
    for start in range(0, len(x), BLOCK_ROWS):
        block = x[start : start + BLOCK_ROWS]
        distances = torch.addmm(y_norms, block, y.T, alpha=-2) + block.square().sum(1)[:, None]
        yield slice(start, start + len(block)), distances
