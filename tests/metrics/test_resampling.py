"""Bootstrap intervals hold what they should, and are the same for every generator state."""

import pytest
import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics import bootstrap


def mean(x: Tensor) -> float:
    return x.mean().item()


def test_the_interval_is_as_wide_as_the_score_is_uncertain() -> None:
    """About +-1.96 sd / sqrt(n) about the value, for a mean."""
    fake = torch.randn(400, generator=torch.Generator().manual_seed(0)).double()
    low, high = bootstrap(mean, fake, resamples=400)
    error = 1.96 * fake.std().item() / 20
    assert low == pytest.approx(mean(fake) - error, abs=0.25 * error)
    assert high == pytest.approx(mean(fake) + error, abs=0.25 * error)


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    hits = 0
    for trial in range(25):
        fake = torch.randn(60, generator=torch.Generator().manual_seed(trial)).double()
        low, high = bootstrap(mean, fake, resamples=20, level=0.8, seed=trial)
        hits += low <= 0 <= high
    assert 14 <= hits <= 24  # 20 expected, sd 2


def test_percentiles_are_interpolated_between_resamples() -> None:
    scores = iter([5.0, 1.0, 4.0, 2.0, 3.0])
    assert bootstrap(lambda fake: next(scores), torch.zeros(3), level=0.5) == (2.0, 4.0)
    scores = iter([5.0, 1.0, 4.0, 2.0, 3.0])
    low, high = bootstrap(lambda fake: next(scores), torch.zeros(3))
    assert (low, high) == pytest.approx((1.1, 4.9))


def test_resamples_are_whole_rows_as_many_as_there_are() -> None:
    fake = torch.arange(20.0).view(10, 2)
    seen: list[Tensor] = []

    def record(x: Tensor) -> float:
        seen.append(x)
        return 0.0

    bootstrap(record, fake, resamples=6)
    assert len(seen) == 6
    for x in seen:
        assert x.shape == fake.shape
        assert torch.equal(x[:, 1] - x[:, 0], torch.ones(10))
    assert any(len(x.unique(dim=0)) < 10 for x in seen)
    assert not torch.equal(seen[0], seen[1])


def test_the_seed_decides() -> None:
    fake = torch.arange(50.0)
    first = bootstrap(mean, fake, seed=1)
    torch.rand(3)
    assert bootstrap(mean, fake, seed=1) == first
    assert bootstrap(mean, fake, seed=2) != first


def test_numbers_that_make_no_sense_are_refused() -> None:
    for wrong in ({"resamples": 1}, {"level": 1.0}, {"level": 0.0}):
        with pytest.raises(UserError, match="at least 2 resamples and a level between 0 and 1"):
            bootstrap(mean, torch.zeros(5), **wrong)
    with pytest.raises(UserError, match="wanted at least 1 fake image to resample, got 0"):
        bootstrap(mean, torch.zeros(0, 3))
