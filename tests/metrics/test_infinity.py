"""Extrapolation finds the intercept it was given, and takes the bias off a real distance."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics import Statistics, frechet_distance, frechet_infinity, statistics
from hvae.metrics.infinity import intercept, subset_sizes


def test_a_line_is_found_exactly() -> None:
    sizes = [5000, 6000, 8000, 10_000]
    found = intercept([1 / n for n in sizes], [3.5 + 7000 / n for n in sizes])
    assert found.value == pytest.approx(3.5, rel=1e-12)
    assert found.stderr == pytest.approx(0, abs=1e-12)


def test_the_error_is_that_of_least_squares() -> None:
    found = intercept([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 6.0])
    residuals = [0.1, 0.7, -1.7, 0.9]  # about -0.5 + 1.4 x, by hand
    variance = sum(r**2 for r in residuals) / 2
    assert found.value == pytest.approx(-0.5)
    assert found.stderr == pytest.approx((variance * (1 / 4 + 2.5**2 / 5)) ** 0.5)


def test_the_error_covers_the_truth() -> None:
    at = [1 / n for n in subset_sizes(50_000, 15)]
    noise = torch.randn(400, 15, generator=torch.Generator().manual_seed(0)) * 0.05
    estimates = [intercept(at, [2 + 3000 * x + e for x, e in zip(at, row, strict=True)])
                 for row in noise.tolist()]  # fmt: skip
    within = [abs(e.value - 2) < 2.16 * e.stderr for e in estimates]  # t(13), 95 %
    assert 0.92 < sum(within) / len(within) < 0.98


@pytest.mark.parametrize(
    ("count", "least"),
    [(50_000, 5000), (100_000, 10_000), (20_000, 5000), (10_000, 5000), (600, 300), (30, 15)],
)
def test_sizes_are_even_and_end_with_all(count: int, least: int) -> None:
    sizes = subset_sizes(count, 15)
    assert (sizes[0], sizes[-1], len(sizes)) == (least, count, 15)
    steps = [b - a for a, b in pairwise(sizes)]
    assert max(steps) - min(steps) <= 1


def test_too_few_images_or_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="wanted at least 30 fake images for 15 sizes, got 20"):
        subset_sizes(20, 15)
    with pytest.raises(UserError, match="wanted at least 3 sizes"):
        subset_sizes(1000, 2)


def gaussian(count: int, seed: int) -> Tensor:
    return torch.randn(count, 24, generator=torch.Generator().manual_seed(seed)).double()


def exact(shift: float) -> Statistics:
    """The reference itself, not a sample of it."""
    mean = torch.zeros(24, dtype=torch.float64)
    mean[0] = shift
    return Statistics(10**9, mean, torch.eye(24, dtype=torch.float64))


def test_the_bias_of_few_images_is_taken_off() -> None:
    real, truth = exact(0.5), 0.25
    plain, extrapolated = [], []
    for seed in range(12):
        fake = gaussian(600, seed)
        plain.append(frechet_distance(statistics(fake), real) - truth)
        extrapolated.append(frechet_infinity(fake, real).value - truth)
    bias = torch.tensor(plain).mean().item()
    left = torch.tensor(extrapolated)
    assert bias > 0.2
    assert abs(left.mean().item()) < 3 * left.std().item() / len(left) ** 0.5 < bias / 2


def test_subsets_are_beginnings_of_one_seeded_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Statistics] = []

    def record(fake: Statistics, real: Statistics) -> float:
        seen.append(fake)
        assert real.cholesky is not None
        return 1.0 + 1 / fake.count

    monkeypatch.setattr("hvae.metrics.infinity.frechet_distance", record)
    fake = gaussian(600, 0)
    assert frechet_infinity(fake, exact(0), sizes=5).value == pytest.approx(1.0)
    assert [s.count for s in seen] == [300, 375, 450, 525, 600]
    whole = statistics(fake)
    torch.testing.assert_close(seen[-1].mean, whole.mean)
    torch.testing.assert_close(seen[-1].cov, whole.cov)
    order = statistics(fake[:300])
    assert not torch.allclose(seen[0].mean, order.mean), "the order is that of the files"


def test_the_seed_decides() -> None:
    fake, real = gaussian(100, 0), exact(0.5)
    first = frechet_infinity(fake, real, seed=1)
    torch.rand(3)
    assert frechet_infinity(fake, real, seed=1) == first
    assert frechet_infinity(fake, real, seed=2) != first
