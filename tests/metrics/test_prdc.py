"""Precision, recall, density and coverage are their definitions, whatever the blocks."""

import pytest
import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics import prdc


def features(count: int, seed: int, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, generator=generator, dtype=torch.float64) + shift


def naive(fake: Tensor, real: Tensor, k: int, density_k: int) -> tuple[float, ...]:
    def distance(a: Tensor, b: Tensor) -> float:
        return float((a - b).square().sum().sqrt())

    def radius(points: Tensor, i: int, neighbours: int) -> float:
        others = [distance(points[i], points[j]) for j in range(len(points)) if j != i]
        return sorted(others)[neighbours - 1]

    def balls(points: Tensor, neighbours: int) -> list[tuple[Tensor, float]]:
        return [(points[i], radius(points, i, neighbours)) for i in range(len(points))]

    def share(points: Tensor, around: list[tuple[Tensor, float]]) -> float:
        hits = [any(distance(p, centre) <= reach for centre, reach in around) for p in points]
        return sum(hits) / len(hits)

    wide = balls(real, density_k)
    held = [sum(distance(p, centre) <= reach for p in fake) for centre, reach in wide]
    return (
        share(fake, balls(real, k)),
        share(real, balls(fake, k)),
        sum(held) / (density_k * len(fake)),
        sum(n > 0 for n in held) / len(held),
    )


@pytest.mark.parametrize("block", [1, 7, 1024])
@pytest.mark.parametrize(
    ("count_fake", "count_real", "k", "density_k"),
    [(20, 20, 3, 5), (17, 25, 1, 1), (30, 12, 5, 2), (12, 30, 2, 7)],
)
def test_they_are_their_definitions(
    count_fake: int,
    count_real: int,
    k: int,
    density_k: int,
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hvae.metrics.neighbours.BLOCK_ROWS", block)
    fake, real = features(count_fake, 1, shift=0.7), features(count_real, 2)
    expected = naive(fake, real, k, density_k)
    assert 0 < min(expected[:2]) < 1, "everything or nothing is inside: the case is too easy"
    assert prdc(fake, real, k=k, density_k=density_k) == pytest.approx(expected, rel=1e-12)


def test_they_tell_apart_what_is_wrong() -> None:
    real = features(400, 1)
    alike = prdc(features(400, 2), real)
    assert min(alike.precision, alike.recall, alike.coverage) > 0.9
    assert alike.density == pytest.approx(1, abs=0.1)
    narrow = prdc(features(400, 2) * 0.1, real)
    assert narrow.precision > 0.95
    assert narrow.recall < 0.1
    assert narrow.coverage < 0.5
    wide = prdc(features(400, 2) * 10, real)
    assert wide.precision < 0.1
    assert wide.recall > 0.9
    assert prdc(features(400, 2, shift=100.0), real) == (0, 0, 0, 0)


def test_far_from_the_origin_nothing_changes() -> None:
    fake, real = features(60, 1, shift=0.5), features(60, 2)
    assert prdc(fake + 1e8, real + 1e8) == pytest.approx(prdc(fake, real), abs=1e-3)


def test_k_below_the_number_of_images_is_wanted() -> None:
    few, many = features(5, 1), features(9, 2)
    prdc(few, many, k=4, density_k=8)
    message = "more {} images than neighbours, got k = {} of {}"
    with pytest.raises(UserError, match=message.format("fake", 5, 5)):
        prdc(few, many, k=5)
    with pytest.raises(UserError, match=message.format("real", 5, 5)):
        prdc(many, few, k=1, density_k=5)
    with pytest.raises(UserError, match=message.format("real", 0, 9)):
        prdc(few, many, density_k=0)
    with pytest.raises(UserError, match="features of 1 of 5 images are not finite"):
        prdc(few / few[0, 0] / torch.tensor([1, 1, 1, 1, 0]).view(5, 1), many, k=1)
