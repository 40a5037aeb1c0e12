"""The Frechet distance agrees with its definition, with other tools, and with itself."""

from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from hvae.errors import UserError
from hvae.metrics import Statistics, frechet_distance, frechet_from_features, statistics

Distance = Callable[[Tensor, Tensor], float]


def from_statistics(fake: Tensor, real: Tensor) -> float:
    return frechet_distance(statistics(fake), statistics(real))


BOTH = pytest.mark.parametrize("distance", [frechet_from_features, from_statistics])


def features(count: int, dim: int, seed: int, shift: float = 0.0, decades: int = 1) -> Tensor:
    """Correlated float64 features whose standard deviations span so many decades."""
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99)).double()
    drawn = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)).double()
    return (drawn * torch.logspace(0, -decades, dim).double()) @ mixing / dim**0.5 + shift


def by_scipy(fake: Tensor, real: Tensor) -> float:
    """The definition in numpy, with the root of the product by `sqrtm`."""
    (mean_a, cov_a), (mean_b, cov_b) = (
        (x.mean(0), np.cov(x, rowvar=False)) for x in (fake.numpy(), real.numpy())
    )
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root.real))


class Identity(nn.Module):
    """What torchmetrics takes features through."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        return x


def by_torchmetrics(fake: Tensor, real: Tensor) -> float:
    metric = FrechetInceptionDistance(feature=Identity(fake.shape[1])).set_dtype(torch.float64)
    metric.update(fake, real=False)
    metric.update(real, real=True)
    return metric.compute().item()


def by_sixty_digits(fake: Tensor, real: Tensor) -> float:
    """The definition: eigenvalues of the product of the covariances, in 60 digits."""
    mpmath.mp.dps = 60
    means, covs = [], []
    for x in (fake, real):
        rows = mpmath.matrix(x.tolist())
        mean = mpmath.matrix([sum(rows[:, j]) / len(x) for j in range(rows.cols)])
        centred = rows - mpmath.ones(len(x), 1) * mean.T
        means.append(mean)
        covs.append(centred.T * centred / (len(x) - 1))
    values = mpmath.eig(covs[0] * covs[1], left=False, right=False)
    root = sum(mpmath.sqrt(abs(mpmath.re(value))) for value in values)
    traces = sum(cov[i, i] for cov in covs for i in range(cov.rows))
    return float(mpmath.norm(means[0] - means[1]) ** 2 + traces - 2 * root)


@BOTH
@pytest.mark.parametrize(("count_a", "count_b"), [(200, 200), (100, 300)])
def test_it_agrees_with_scipy_and_torchmetrics(
    distance: Distance, count_a: int, count_b: int
) -> None:
    fake, real = features(count_a, 64, 1, shift=0.05), features(count_b, 64, 2)
    value = distance(fake, real)
    assert value == pytest.approx(by_torchmetrics(fake, real), rel=1e-9)
    assert value == pytest.approx(by_scipy(fake, real), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "count"), [(768, 1600), (2048, 6000)])
def test_it_agrees_with_others_at_the_width_of_real_extractors(dim: int, count: int) -> None:
    fake, real = features(count, dim, 1, shift=0.05), features(count + 7, dim, 2)
    value = frechet_from_features(fake, real)
    assert value == pytest.approx(by_torchmetrics(fake, real), rel=1e-9)
    assert value == pytest.approx(by_scipy(fake, real), rel=1e-9)


@BOTH
@pytest.mark.parametrize(
    ("count_a", "count_b"), [(5, 7), (5, 40), (40, 5), (2, 2), (12, 12), (13, 13), (40, 40)]
)
def test_it_is_exact_on_both_sides_of_the_width(
    distance: Distance, count_a: int, count_b: int
) -> None:
    fake = features(count_a, 12, 1, shift=0.1, decades=3)
    real = features(count_b, 12, 2, decades=3)
    assert distance(fake, real) == pytest.approx(by_sixty_digits(fake, real), rel=1e-11)


@pytest.mark.parametrize(
    "dim", [96, *(pytest.param(dim, marks=pytest.mark.slow) for dim in (768, 2048))]
)
@pytest.mark.parametrize(("count_a", "count_b"), [(0.5, 0.4), (0.3, 1.5), (1.5, 0.3)])
def test_few_images_in_many_dimensions_agree_with_the_same_in_few(
    dim: int, count_a: float, count_b: float
) -> None:
    """Turned into more dimensions, features keep their distance; others are accurate in few."""
    narrow = dim // 8
    fake, real = (
        features(int(share * dim), narrow, seed, shift=0.1 * seed)
        for seed, share in ((1, count_a), (2, count_b))
    )
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(square).Q[:narrow]
    wide = frechet_from_features(fake @ turn, real @ turn)
    assert wide == pytest.approx(by_torchmetrics(fake, real), rel=1e-9)
    assert wide == pytest.approx(by_scipy(fake, real), rel=1e-9)


@pytest.mark.parametrize("block", [1, 5, 24, 100])
def test_blocks_do_not_matter(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, real = features(100, 24, 1, shift=0.3), features(150, 24, 2)
    value = from_statistics(fake, real)
    monkeypatch.setattr("hvae.metrics.frechet._BLOCK", block)
    assert from_statistics(fake, real) == pytest.approx(value, rel=1e-11)


@BOTH
@pytest.mark.parametrize("count", [30, 200])
def test_equal_sets_are_at_distance_zero(distance: Distance, count: int) -> None:
    same = features(count, 64, 1, shift=3.0)
    value = distance(same, same.flip(0))
    assert 0 <= value <= 1e-9 * statistics(same).cov.trace()


@BOTH
def test_it_is_symmetric_and_no_shift_of_both_matters(distance: Distance) -> None:
    fake, real = features(100, 32, 1, shift=0.3), features(150, 32, 2)
    value = distance(fake, real)
    assert distance(real, fake) == pytest.approx(value, rel=1e-11)
    assert distance(fake + 1e3, real + 1e3) == pytest.approx(value, rel=1e-9)


@BOTH
def test_gaussians_have_the_distance_of_their_parameters(distance: Distance) -> None:
    std_a, std_b = torch.tensor([1.0, 2.0, 0.5, 3.0]), torch.tensor([2.0, 1.0, 0.5, 1.0])
    mean = torch.tensor([0.5, 0.0, -1.0, 2.0])
    exact = (mean.square() + (std_a - std_b).square()).sum().item()
    generator = torch.Generator().manual_seed(0)
    count = 40_000
    values = []
    for _ in range(10):
        a = torch.randn(count, 4, generator=generator) * std_a + mean
        b = torch.randn(count, 4, generator=generator) * std_b
        values.append(distance(a, b))
    found = torch.tensor(values)
    assert found.std() < 0.02 * exact  # or the next line would say nothing
    assert abs(found.mean() - exact) < 4 * found.std() / len(values) ** 0.5


@BOTH
def test_features_that_are_always_zero_change_nothing(distance: Distance) -> None:
    fake, real = features(100, 24, 1, shift=0.3), features(150, 24, 2)
    value = distance(fake, real)
    dead = [torch.cat([x, torch.zeros(len(x), 8)], 1) for x in (fake, real)]
    assert distance(*dead) == pytest.approx(value, rel=1e-9)


@BOTH
def test_constant_sets_differ_by_their_means_and_the_other_trace(distance: Distance) -> None:
    constant, real = torch.full((50, 8), 2.0), features(60, 8, 2)
    exact = (real.mean(0) - 2).square().sum() + statistics(real).cov.trace()
    assert distance(constant, real) == pytest.approx(exact.item(), rel=1e-12)
    assert distance(real, constant) == pytest.approx(exact.item(), rel=1e-12)


@BOTH
def test_float32_features_are_summed_in_float64(distance: Distance) -> None:
    fake, real = (features(200, 32, seed).float() + 100 for seed in (1, 2))
    assert distance(fake, real) == distance(fake.double(), real.double())


def test_a_stored_factor_is_used_whichever_side_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = statistics(features(100, 16, 1)), statistics(features(100, 16, 2, shift=0.2))
    value = frechet_distance(a, b)
    stored = a.factored(), b.factored()
    monkeypatch.setattr("hvae.metrics.frechet.cholesky_factor", None)
    assert frechet_distance(stored[0], b) == pytest.approx(value, rel=1e-12)
    assert frechet_distance(a, stored[1]) == pytest.approx(value, rel=1e-12)
    with pytest.raises(TypeError):
        frechet_distance(a, b)


def test_what_is_no_covariance_is_refused() -> None:
    good = statistics(torch.randn(50, 4))
    negative = torch.diag(torch.tensor([1.0, 1.0, 1.0, -1e-3], dtype=torch.float64))
    bad = Statistics(50, good.mean, negative)
    with pytest.raises(UserError, match="has a negative eigenvalue"):
        frechet_distance(bad, good)
    with pytest.raises(UserError, match="is not positive semi-definite"):
        frechet_distance(good, bad)
    few = Statistics(3, good.mean, negative)
    with pytest.raises(UserError, match="has a negative eigenvalue"):
        frechet_distance(few, good)


def test_widths_that_differ_are_refused() -> None:
    a, b = features(20, 4, 1), features(20, 5, 1)
    with pytest.raises(ValueError, match=r"one width, got fake \(20, 4\), real \(20, 5\)"):
        frechet_from_features(a, b)
    with pytest.raises(ValueError, match="one width, got fake 4, real 5"):
        from_statistics(a, b)
