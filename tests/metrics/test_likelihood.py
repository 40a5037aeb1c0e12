"""Scores do not depend on how they were batched, and count every image once."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from hvae.errors import HvaeError, UserError
from hvae.metrics import evaluate_likelihood, importance_bound, nats_to_bits_per_dim
from hvae.models import HVAE, Elbo, ModelConfig
from hvae.ops.philox import derive_seed, make_rng, philox_normal


@dataclass(frozen=True)
class FakeIdentity:
    sha256: str = "5eed"


class FakeSet:
    """Random images."""

    name, split = "noise", "test"

    def __init__(self, count: int, shape: tuple[int, ...] = (1, 4, 4)) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]

    def identity(self) -> FakeIdentity:
        return FakeIdentity()


class LinearGaussian:
    """z ~ N(0, 1), x ~ N(z, 1), q(z | x) = N(mean, std^2): everything is known in closed form.

    x is the first pixel / 64. Keeps a record of the rows and the noise it was asked for.
    """

    device = torch.device("cpu")
    num_dims = 16

    def __init__(self, std: float = 0.9) -> None:
        self.std = std
        self.rows: list[int] = []
        self.samples: list[int] = []
        self.seeds: set[int] = set()

    def _record(self, images: Tensor, rng: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.rows.append(len(images))
        self.seeds.add(rng[0].item())
        self.samples += range(rng[1].item(), rng[1].item() + len(images))
        x = images[:, 0, 0, 0].double() / 64
        eps = philox_normal(rng, 0, (len(images), 1), torch.float64)[:, 0]
        return x, x / 2 + self.std * eps, eps

    def __call__(self, images: Tensor, *, rng: Tensor) -> Elbo:
        x, z, _ = self._record(images, rng)
        nll = (x - z) ** 2 / 2 + math.log(2 * math.pi) / 2
        kl = (x**2 / 4 + self.std**2 - 1) / 2 - math.log(self.std)
        kl = torch.stack([kl, 2 * kl], 1)
        elbo = -(nll + kl.sum(1))
        return Elbo(nll, kl, elbo, nats_to_bits_per_dim(elbo, self.num_dims))

    def log_weights(self, images: Tensor, *, rng: Tensor) -> Tensor:
        x, z, eps = self._record(images, rng)
        log_joint = -((x - z) ** 2) / 2 - z**2 / 2 - math.log(2 * math.pi)
        return log_joint + eps**2 / 2 + math.log(2 * math.pi) / 2 + math.log(self.std)

    def log_prob(self, images: Tensor) -> Tensor:
        """ln N(x; 0, 2), the exact likelihood."""
        x = images[:, 0, 0, 0].double() / 64
        return -(x**2) / 4 - math.log(4 * math.pi) / 2


@pytest.mark.parametrize("batch", [1, 3, 7, 10, 64])
@pytest.mark.parametrize("importance", [2, 5, 20])
def test_scores_do_not_depend_on_the_batch_size(batch: int, importance: int) -> None:
    source = FakeSet(10)
    score = evaluate_likelihood(LinearGaussian(), source, batch=batch, importance=importance)
    other = evaluate_likelihood(LinearGaussian(), source, batch=4, importance=importance)
    assert score.elbo_bits_per_dim == pytest.approx(other.elbo_bits_per_dim, rel=1e-12)
    assert score.elbo_stderr == pytest.approx(other.elbo_stderr, rel=1e-12)
    assert score.importance_bits_per_dim == pytest.approx(other.importance_bits_per_dim, rel=1e-12)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_each_image_is_scored_once_and_no_pass_exceeds_the_batch(batch: int) -> None:
    model = LinearGaussian()
    done: list[int] = []
    evaluate_likelihood(model, FakeSet(10), batch=batch, progress=done.append)
    assert model.samples == list(range(10))
    assert max(model.rows) <= batch
    assert done[-1] == 10
    assert model.seeds == {derive_seed(0, "evaluation")}


@pytest.mark.parametrize("batch", [2, 7, 64])
def test_importance_sample_k_of_image_i_has_index_ik_plus_k(batch: int) -> None:
    model = LinearGaussian()
    evaluate_likelihood(model, FakeSet(10), batch=batch, importance=5)
    assert sorted(model.samples) == sorted([*range(10), *range(50)])
    assert max(model.rows) <= batch


def test_the_mean_is_over_images_not_over_batches() -> None:
    model, source = LinearGaussian(), FakeSet(5)
    score = evaluate_likelihood(model, source, batch=4)
    elbo = model(source.images, rng=make_rng(derive_seed(0, "evaluation")))
    assert score.elbo_bits_per_dim == pytest.approx(elbo.bits_per_dim.mean().item(), rel=1e-12)
    assert score.kl_per_group == pytest.approx(elbo.kl.mean(0).tolist(), rel=1e-12)
    assert score.kl == pytest.approx(sum(score.kl_per_group))
    nats = score.elbo_bits_per_dim * math.log(2) * score.num_dims
    assert nats == pytest.approx(score.nll + score.kl)


def test_the_importance_bound_closes_in_on_the_exact_likelihood() -> None:
    model, source = LinearGaussian(), FakeSet(50)
    exact = nats_to_bits_per_dim(model.log_prob(source.images), 16).mean().item()
    bounds = [
        evaluate_likelihood(model, source, importance=k, batch=4096).importance_bits_per_dim
        for k in (2, 32, 2048)
    ]
    assert bounds[0] > bounds[1] > bounds[2]
    assert bounds[2] == pytest.approx(exact, abs=1e-3)


def test_with_the_exact_posterior_one_sample_is_enough() -> None:
    model, source = LinearGaussian(std=math.sqrt(0.5)), FakeSet(20)
    exact = nats_to_bits_per_dim(model.log_prob(source.images), 16).mean().item()
    score = evaluate_likelihood(model, source, importance=2)
    assert score.importance_bits_per_dim == pytest.approx(exact, rel=1e-12)


def test_the_record_says_what_was_scored() -> None:
    score = evaluate_likelihood(LinearGaussian(), FakeSet(10), images=4, seed=7, importance=3)
    assert (score.dataset, score.split, score.sha256) == ("noise", "test", "5eed")
    assert (score.num_images, score.num_dims, score.seed) == (4, 16, 7)
    assert score.estimators == ("ELBO", "IWAE-3")


def test_one_image_has_no_standard_error_and_one_sample_no_second_bound() -> None:
    score = evaluate_likelihood(LinearGaussian(), FakeSet(1))
    assert score.elbo_stderr is None
    assert score.importance_bits_per_dim is None
    assert score.estimators == ("ELBO",)


def test_more_images_than_there_are_means_all() -> None:
    assert evaluate_likelihood(LinearGaussian(), FakeSet(3), images=100).num_images == 3


def test_a_likelihood_that_is_not_finite_is_named() -> None:
    class Diverged(LinearGaussian):
        def __call__(self, images: Tensor, *, rng: Tensor) -> Elbo:
            elbo = super().__call__(images, rng=rng)
            elbo.elbo[-1] = math.nan
            return elbo

    with pytest.raises(HvaeError, match=r"image 3 of noise test has an ELBO of nan nats"):
        evaluate_likelihood(Diverged(), FakeSet(8), batch=4)


@pytest.mark.parametrize("name", ["importance", "images", "batch"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} must be at least 1, got 0"):
        evaluate_likelihood(LinearGaussian(), FakeSet(2), **{name: 0})


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(UserError, match="noise test has no images to score"):
        evaluate_likelihood(LinearGaussian(), FakeSet(0))


def test_the_bound_survives_weights_that_float32_cannot_hold() -> None:
    log_weights = torch.tensor([[-5000.0, -5001.0], [3000.0, 3000.0]])
    bound = importance_bound(log_weights)
    assert bound.dtype == torch.float64
    expected = -5000 + math.log((1 + math.exp(-1)) / 2)
    assert bound.tolist() == pytest.approx([expected, 3000.0], rel=1e-12)


def test_a_real_model_is_scored_alike_for_every_batch_size() -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        size=(8, 8), channels=1, encoder="8x1,8d8,1x1", decoder="1x1,8m1,8x1", width=8,
        z_channels=2,
    )  # fmt: skip
    model, source = HVAE(config).eval(), FakeSet(5, (1, 8, 8))
    scores = [evaluate_likelihood(model, source, batch=b, importance=4) for b in (1, 2, 64)]
    for score in scores[1:]:
        assert score.elbo_bits_per_dim == pytest.approx(scores[0].elbo_bits_per_dim, rel=1e-6)
        assert score.importance_bits_per_dim == pytest.approx(
            scores[0].importance_bits_per_dim, rel=1e-6
        )
    assert len(scores[0].kl_per_group) == model.num_groups
    direct = [model(source[i][None], rng=make_rng(derive_seed(0, "evaluation"), i))
              for i in range(5)]  # fmt: skip
    mean = sum(elbo.bits_per_dim.item() for elbo in direct) / 5
    assert scores[0].elbo_bits_per_dim == pytest.approx(mean, rel=1e-6)
