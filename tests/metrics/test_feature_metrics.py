"""The accumulating metrics of features: batches, ranks, extractors and casts."""

import doctest
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hvae.errors import UserError
from hvae.metrics import (
    FrechetDistance,
    KernelDistance,
    PrecisionRecall,
    frechet_distance,
    frechet_metric,
    kernel_distance,
    prdc,
    statistics,
)
from hvae.metrics.feature_metric import FeatureMetric

DIM = 4


def features(count: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)) + shift


FAKE, REAL = features(40, 1, shift=0.5), features(50, 2)

Make = Callable[..., FeatureMetric]


def make_kernel(*args: object, **kwargs: object) -> KernelDistance:
    return KernelDistance(*args, subsets=5, subset_size=20, **kwargs)


EVERY = pytest.mark.parametrize("make", [FrechetDistance, make_kernel, PrecisionRecall])


def scores(metric: FeatureMetric) -> list[float]:
    found = metric.compute()
    values = [found] if isinstance(found, Tensor) else list(found.values())
    assert all(value.dtype == torch.float64 and value.shape == () for value in values)
    return [value.item() for value in values]


def filled(make: Make, fake: Tensor = FAKE, real: Tensor = REAL, batch: int = 100) -> FeatureMetric:
    metric = make(dim=DIM)
    for part in fake.split(batch):
        metric.update(part, real=False)
    for part in real.split(batch):
        metric.update(part, real=True)
    return metric


def test_scores_are_those_of_the_functions() -> None:
    frechet = frechet_distance(statistics(FAKE), statistics(REAL))
    assert scores(filled(FrechetDistance)) == pytest.approx([frechet], rel=1e-12)
    kernel = kernel_distance(FAKE, REAL, subsets=5, subset_size=20)
    assert scores(filled(make_kernel)) == list(kernel)
    assert set(filled(make_kernel).compute()) == {"mean", "sd"}
    assert scores(filled(PrecisionRecall)) == list(prdc(FAKE, REAL))
    assert list(filled(PrecisionRecall).compute()) == ["precision", "recall", "density", "coverage"]


def test_options_reach_the_functions() -> None:
    metric = KernelDistance(dim=DIM, subsets=3, subset_size=9, seed=5)
    neighbours = PrecisionRecall(dim=DIM, k=1, density_k=2)
    for each in (metric, neighbours):
        each.update(FAKE, real=False)
        each.update(REAL, real=True)
    assert scores(metric) == list(kernel_distance(FAKE, REAL, subsets=3, subset_size=9, seed=5))
    assert scores(neighbours) == list(prdc(FAKE, REAL, k=1, density_k=2))


@EVERY
@pytest.mark.parametrize("batch", [1, 7, 49])
def test_batches_do_not_matter(make: Make, batch: int) -> None:
    assert scores(filled(make, batch=batch)) == pytest.approx(scores(filled(make)), rel=1e-10)


def shared(mine: FeatureMetric, theirs: FeatureMetric) -> list[float]:
    """What `mine` computes as the first of two ranks; the second one's tensors are played back."""
    sent: list[Tensor] = []

    def record(x: Tensor, group: object = None) -> list[Tensor]:
        sent.append(x)
        return [x]

    def gather(x: Tensor, group: object = None) -> list[Tensor]:
        theirs_now = sent.pop(0)
        assert (x.dtype, x.ndim) == (theirs_now.dtype, theirs_now.ndim), "all_gather would fail"
        return [x, theirs_now]

    theirs.sync(dist_sync_fn=record, distributed_available=lambda: True)
    theirs.unsync()
    mine.dist_sync_fn, mine.distributed_available_fn = gather, lambda: True
    found = scores(mine)
    mine.dist_sync_fn = mine.distributed_available_fn = None
    mine._computed = None
    return found


@EVERY
@pytest.mark.parametrize("split", [(13, 30), (1, 49), (40, 0), (0, 50), (0, 0)])
def test_two_ranks_score_as_one(make: Make, split: tuple[int, int]) -> None:
    fakes, reals = split
    mine = filled(make, FAKE[:fakes], REAL[:reals], batch=8)
    theirs = filled(make, FAKE[fakes:], REAL[reals:], batch=9)
    assert shared(mine, theirs) == pytest.approx(scores(filled(make)), rel=1e-10)


@EVERY
def test_after_a_shared_score_a_rank_goes_on_with_its_own(make: Make) -> None:
    mine, theirs = filled(make, FAKE[:20], REAL[:20]), filled(make, FAKE[20:], REAL[20:])
    alone = scores(filled(make, FAKE[:20], REAL[:20]))
    assert shared(mine, theirs) != alone
    assert scores(mine) == alone


@EVERY
def test_states_merge(make: Make) -> None:
    whole = filled(make, FAKE[15:], REAL[20:])
    whole.merge_state(filled(make, FAKE[:15], REAL[:20]))
    found = scores(whole)
    if make is not make_kernel:  # its subsets depend on the order
        assert found == pytest.approx(scores(filled(make)), rel=1e-10)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_cast_of_a_parent_reaches_features_or_sums(make: Make, dtype: torch.dtype) -> None:
    metric = filled(make, FAKE.to(dtype), REAL.to(dtype), batch=9)
    exact = scores(metric)
    parent = nn.ModuleDict({"metric": metric, "layer": nn.Linear(1, 1)})
    for cast in (parent.half, parent.bfloat16, lambda: parent.to(torch.bfloat16)):
        cast()
        assert scores(metric) == exact
        metric._computed = None
        assert scores(metric) == exact
    metric.set_dtype(torch.float16)
    assert scores(metric) == exact
    metric.reset()
    for real, x in ((False, FAKE), (True, REAL)):
        metric.update(x.to(dtype), real=real)
    assert scores(metric) == pytest.approx(exact, rel=1e-10)


class Extractor(nn.Module):
    """Three features of uint8 images, not exact in bfloat16."""

    dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.1, 0.2, 0.3]))
        self.seen: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.dtype)
        return x.float().mean((2, 3)) * self.weight


def images(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, 2, 2), dtype=torch.uint8, generator=generator)


@EVERY
def test_images_pass_through_the_extractor(make: Make) -> None:
    extractor = Extractor()
    metric, given = make(extractor), make(dim=3)
    for real, seed in ((False, 1), (True, 2)):
        metric.update(images(30, seed), real=real)
        given.update(extractor(images(30, seed)).detach(), real=real)
    assert scores(metric) == scores(given)
    assert set(extractor.seen) == {torch.uint8}


@EVERY
def test_a_parent_neither_casts_nor_saves_nor_trains_the_extractor(make: Make) -> None:
    extractor = Extractor().eval()
    parent = nn.ModuleDict({"metric": make(extractor)})
    parent.to(torch.bfloat16)
    parent.train()
    assert extractor.weight.dtype == torch.float32
    assert not extractor.training
    assert not list(parent.parameters())
    assert not parent.state_dict()
    parent.to("meta")
    assert extractor.weight.is_meta


def test_any_callable_with_a_width_extracts() -> None:
    class Means:
        dim = 3

        def __call__(self, x: Tensor) -> Tensor:
            return x.double().mean((2, 3))

    metric = FrechetDistance(Means())
    metric.update(images(30, 1), real=True)
    metric.update(images(30, 1), real=False)
    assert scores(metric) == pytest.approx([0], abs=1e-9)


@EVERY
def test_reals_outlive_a_reset_if_wanted(make: Make) -> None:
    metric = make(dim=DIM, reset_real_features=False)
    metric.update(REAL, real=True)
    metric.update(FAKE + 1, real=False)
    metric.reset()
    metric.update(FAKE, real=False)
    assert scores(metric) == scores(filled(make))
    other = filled(make)
    other.reset()
    other.update(FAKE, real=False)
    with pytest.raises(UserError, match="got 0"):
        other.compute()


@EVERY
def test_a_call_updates_and_has_no_score(make: Make) -> None:
    metric = make(dim=DIM)
    assert metric(REAL, real=True) is None
    assert metric(FAKE, real=False) is None
    assert scores(metric) == scores(filled(make))


@EVERY
def test_what_are_no_images_or_features_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="either an extractor as features, or the width"):
        make()
    with pytest.raises(ValueError, match="either an extractor as features, or the width"):
        make(Extractor(), dim=3)
    with pytest.raises(
        ValueError, match=r"wanted uint8 images .* got torch.float32 \(2, 3, 2, 2\)"
    ):
        make(Extractor()).update(images(2, 1).float(), real=True)
    with pytest.raises(ValueError, match=r"floating features \(N, 4\), got torch.float32 \(2, 3\)"):
        make(dim=DIM).update(torch.zeros(2, 3), real=True)


@EVERY
def test_a_bad_feature_is_refused_with_its_place_in_the_stream(make: Make) -> None:
    metric = make(dim=DIM)
    metric.update(REAL, real=True)
    metric.update(FAKE[:30], real=False)
    bad = FAKE[30:].clone()
    bad[3, 1] = torch.nan
    with pytest.raises(UserError, match="1 of 10 images are not finite, first those of image 33;"):
        metric.update(bad, real=False)
    metric.update(FAKE[30:], real=False)
    assert scores(metric) == pytest.approx(scores(filled(make)), rel=1e-10)


@EVERY
def test_no_gradient_is_kept(make: Make) -> None:
    metric = make(dim=DIM)
    metric.update(REAL.clone().requires_grad_(), real=True)
    metric.update(FAKE.clone().requires_grad_(), real=False)
    assert scores(metric) == scores(filled(make))
    with torch.enable_grad():
        assert not metric.extract(REAL.clone().requires_grad_(), 0).requires_grad


def test_the_docstring_example_holds() -> None:
    assert doctest.testmod(frechet_metric).failed == 0
