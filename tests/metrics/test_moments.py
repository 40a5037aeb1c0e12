"""Mean and covariance do not depend on how features came, and lose no digits."""

import pytest
import torch

from hvae.errors import UserError
from hvae.metrics import Moments, Statistics, statistics
from hvae.metrics.checks import check_finite
from hvae.metrics.moments import cholesky_factor, merged


def features(count: int, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    return drawn @ torch.randn(5, 5, generator=generator, dtype=torch.float64) + shift


def moments_of(*batches: torch.Tensor) -> Moments:
    moments = Moments.empty(5)
    for batch in batches:
        moments.update(batch)
    return moments


def assert_same(a: Statistics, b: Statistics, rtol: float = 1e-12) -> None:
    assert a.count == b.count
    torch.testing.assert_close(a.mean, b.mean, rtol=rtol, atol=0)
    torch.testing.assert_close(a.cov, b.cov, rtol=rtol, atol=1e-12 * b.cov.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mean_and_covariance_are_those_of_torch(dtype: torch.dtype) -> None:
    x = features(40).to(dtype)
    found = statistics(x)
    assert (found.mean.dtype, found.cov.dtype) == (torch.float64, torch.float64)
    assert_same(found, Statistics(40, x.double().mean(0), x.double().T.cov()))


@pytest.mark.parametrize("sizes", [[40], [1] * 40, [7, 0, 13, 20], [39, 1]])
def test_batches_do_not_matter(sizes: list[int]) -> None:
    x = features(40, shift=3.0)
    assert_same(moments_of(*x.split(sizes)).statistics(), statistics(x))


@pytest.mark.parametrize("sizes", [[40], [10, 30], [1, 1, 38], [0, 40], [15, 0, 25]])
def test_parts_of_ranks_make_the_whole(sizes: list[int]) -> None:
    x = features(40, shift=-2.0)
    parts = torch.stack([moments_of(part).packed for part in x.split(sizes)])
    before = parts.clone()
    whole = Moments(merged(parts))
    assert_same(whole.statistics(), statistics(x))
    assert torch.equal(whole.packed, whole.packed.T)
    assert torch.equal(parts, before)


def test_parts_that_saw_nothing_make_nothing() -> None:
    assert not merged(torch.zeros(3, 6, 6, dtype=torch.float64)).any()


def test_large_means_cost_no_digits() -> None:
    x = features(64).mul(2**20).round().div(2**20)  # so that adding a million is exact
    near, far = moments_of(*x.split(16)), moments_of(*(x + 2.0**20).split(16))
    a, b = near.statistics().cov, far.statistics().cov
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    sums = (x + 2.0**20).T @ (x + 2.0**20) - 64 * torch.outer(*[(x + 2.0**20).mean(0)] * 2)
    assert (sums / 63 - a).abs().max() > 1e-6, "plain sums would do: the case is too easy"


def test_one_image_has_no_covariance() -> None:
    with pytest.raises(UserError, match="wanted at least 2 images, got 1"):
        statistics(features(1))
    with pytest.raises(UserError, match="wanted at least 2 images, got 1"):
        moments_of(features(1)).statistics()
    assert statistics(features(2)).count == 2


def test_a_value_that_is_not_finite_is_counted_and_named() -> None:
    x = features(9)
    x[4, 2], x[7, 0] = torch.nan, torch.inf
    message = "features of 2 of 9 images are not finite, first those of "
    with pytest.raises(UserError, match=f"{message}image 4;"):
        statistics(x)
    with pytest.raises(UserError, match=f"{message}4.png;"):
        check_finite(x, [f"{i}.png" for i in range(9)])
    moments = moments_of(features(100))
    with pytest.raises(UserError, match=f"{message}image 104;"):
        moments.update(x)
    assert moments.count == 100
    check_finite(features(9))


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (torch.zeros(3, 4), r"\(N, 5\), got torch.float32 \(3, 4\)"),
        (torch.zeros(5), r"got torch.float32 \(5,\)"),
        (torch.zeros(3, 5, dtype=torch.uint8), r"got torch.uint8 \(3, 5\)"),
    ],
)
def test_what_are_no_features_is_refused(x: torch.Tensor, got: str) -> None:
    with pytest.raises(ValueError, match=got):
        Moments.empty(5).update(x)


def test_statistics_check_what_they_are_made_of() -> None:
    mean, cov = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"wanted cov as float64 \(3, 3\), got torch.float32"):
        Statistics(9, mean, cov.float())
    with pytest.raises(ValueError, match=r"wanted cov as float64 \(3, 3\), got .* \(2, 3\)"):
        Statistics(9, mean, cov[:2])
    with pytest.raises(ValueError, match=r"wanted cholesky as float64 \(3, 3\)"):
        Statistics(9, mean, cov, cov[:, :2])
    with pytest.raises(UserError, match="the mean of stored features is not finite"):
        Statistics(9, mean / 0, cov)
    with pytest.raises(UserError, match="wanted at least 2 images, got 1"):
        Statistics(1, mean, cov)


def test_a_factor_squares_to_the_covariance_and_is_made_once() -> None:
    plain = statistics(features(40))
    factored = plain.factored()
    assert factored.cholesky is not None
    torch.testing.assert_close(factored.cholesky @ factored.cholesky.T, plain.cov)
    assert torch.equal(factored.cholesky, factored.cholesky.tril())
    assert factored.factored() is factored
    moved = factored.to("cpu")
    assert moved.cholesky is not None
    assert statistics(features(6)).factored().cholesky is not None
    assert statistics(features(5)).factored().cholesky is None


def test_a_ridge_is_added_only_where_there_is_no_factor() -> None:
    regular = statistics(features(40)).cov
    assert torch.equal(cholesky_factor(regular), torch.linalg.cholesky(regular))
    singular = torch.block_diag(regular, torch.zeros(2, 2, dtype=torch.float64))
    factor = cholesky_factor(singular)
    assert (factor @ factor.T - singular).abs().max() <= 1e-12 * regular.diagonal().mean()
    nothing = torch.zeros(3, 3, dtype=torch.float64)
    assert torch.equal(cholesky_factor(nothing), nothing)
