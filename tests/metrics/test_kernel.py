"""The kernel distance is its definition, without bias, the same for every generator state."""

import pytest
import torch
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from hvae.errors import UserError
from hvae.metrics import kernel_distance
from hvae.metrics.draws import permutation, with_replacement
from hvae.metrics.kernel import squared_mmd


def features(count: int, seed: int, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=generator, dtype=torch.float64) + shift


def naive_mmd(x: Tensor, y: Tensor) -> float:
    def kernel(a: Tensor, b: Tensor) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    def within(rows: Tensor) -> float:
        n = len(rows)
        total = sum(kernel(rows[i], rows[j]) for i in range(n) for j in range(n) if i != j)
        return total / (n * (n - 1))

    across = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return within(x) + within(y) - 2 * across


@pytest.mark.parametrize(("count_x", "count_y"), [(9, 9), (2, 7), (11, 3)])
def test_it_is_the_definition(count_x: int, count_y: int) -> None:
    x, y = features(count_x, 1), features(count_y, 2, shift=0.5)
    assert squared_mmd(x, y).item() == pytest.approx(naive_mmd(x, y), rel=1e-12)


def test_torchmetrics_agrees() -> None:
    x, y = features(50, 1), features(50, 2, shift=0.5)
    assert squared_mmd(x, y).item() == pytest.approx(poly_mmd(x, y).item(), rel=1e-12)


def test_it_has_no_bias() -> None:
    """Against the same with the diagonal, which is biased by far more than the error here."""
    rounds = [(features(10, 2 * i), features(10, 2 * i + 1)) for i in range(400)]
    values = torch.stack([squared_mmd(x, y) for x, y in rounds])
    stderr = (values.std() / len(values) ** 0.5).item()
    assert abs(values.mean().item()) < 3 * stderr
    assert (values < 0).any()
    biased = torch.stack(
        [sum(((a @ a.T / 4 + 1) ** 3).trace() for a in pair) / 10**2 for pair in rounds]
    )
    assert biased.mean().item() > 20 * stderr


def test_mean_and_spread_are_over_seeded_subsets() -> None:
    fake, real = features(30, 1, shift=0.3), features(40, 2)
    estimate = kernel_distance(fake, real, subsets=20, subset_size=8, seed=3)
    torch.rand(5)
    assert kernel_distance(fake, real, subsets=20, subset_size=8, seed=3) == estimate
    assert kernel_distance(fake.float(), real.float(), subsets=20, subset_size=8, seed=3).mean == (
        pytest.approx(estimate.mean, rel=1e-5)
    )
    assert kernel_distance(fake, real, subsets=20, subset_size=8, seed=4) != estimate
    assert estimate.sd > 0


def test_with_all_images_every_subset_is_the_whole() -> None:
    fake, real = features(30, 1, shift=0.3), features(30, 2)
    estimate = kernel_distance(fake, real, subsets=3)
    assert estimate.mean == pytest.approx(squared_mmd(fake, real).item(), rel=1e-12)
    assert estimate.sd == pytest.approx(0, abs=1e-12)


def test_the_spread_divides_by_the_number_of_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([1.0, 2.0, 6.0])
    monkeypatch.setattr(
        "hvae.metrics.kernel.squared_mmd",
        lambda x, y: torch.tensor(next(values), dtype=torch.float64),
    )
    estimate = kernel_distance(features(9, 1), features(9, 2), subsets=3)
    assert estimate.mean == pytest.approx(3.0)
    assert estimate.sd == pytest.approx((14 / 3) ** 0.5)


def test_subsets_are_as_large_as_asked_or_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def record(x: Tensor, y: Tensor) -> Tensor:
        seen.append((x, y))
        return torch.zeros((), dtype=torch.float64)

    monkeypatch.setattr("hvae.metrics.kernel.squared_mmd", record)
    fake, real = features(12, 1), features(20, 2)
    kernel_distance(fake, real, subsets=4, subset_size=10)
    kernel_distance(fake, real, subsets=1)
    assert [(len(x), len(y)) for x, y in seen] == [(10, 10)] * 4 + [(12, 12)]
    for x, _ in seen:
        assert len(x.unique(dim=0)) == len(x), "drawn with replacement"
    assert not torch.equal(seen[0][0], seen[1][0])
    rows = {tuple(row) for row in real.tolist()}
    assert all(tuple(row) in rows for _, y in seen for row in y.tolist())


def test_numbers_that_make_no_sense_are_refused() -> None:
    for wrong in ({"subsets": 0}, {"subset_size": 1}):
        with pytest.raises(UserError, match="wanted at least 1 subset of at least 2 images"):
            kernel_distance(features(9, 1), features(9, 2), **wrong)
    with pytest.raises(UserError, match="wanted at least 2 real images, got 1"):
        kernel_distance(features(9, 1), features(1, 2))


@pytest.mark.parametrize("count", [1, 2, 5, 1000])
def test_orders_hold_each_once_and_differ(count: int) -> None:
    order = permutation(7, count)
    assert torch.equal(order.sort().values, torch.arange(count))
    if count > 2:
        others = [permutation(8, count), permutation(7, count, stream=1)]
        others.append(permutation(7, count, index=1))
        assert not any(torch.equal(order, other) for other in others)


def test_every_image_comes_first_equally_often() -> None:
    first = torch.stack([permutation(1, 5, index=i)[0] for i in range(500)])
    assert (first.bincount(minlength=5) - 100).abs().max() < 5 * (100 * 0.8) ** 0.5


def test_draws_with_replacement_are_even_and_reach_both_ends() -> None:
    drawn = torch.cat([with_replacement(1, 50, index=i) for i in range(200)])
    counts = drawn.bincount(minlength=50)
    assert len(counts) == 50
    assert (counts - 200).abs().max() < 5 * 200**0.5
    assert len(with_replacement(1, 50).unique()) < 50
