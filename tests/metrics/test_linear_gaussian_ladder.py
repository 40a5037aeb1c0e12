"""The estimators on a ladder of two levels whose likelihood is known exactly.

    z1 ~ N(0, I_2)    z2 | z1 ~ N(A z1, diag)    x | z1, z2 ~ N(B z2 + C z1, diag)    x in R^4

so x is normal with a known covariance, and the posterior of z1, then of z2 given z1, is known too.
The model's posterior is that, made diagonal and moved off, by the ops that real models use.
"""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from hvae import ops
from hvae.distributions.gaussian import log_density_ratio
from hvae.metrics import evaluate_likelihood, importance_bound, nats_to_bits_per_dim
from hvae.models import Elbo
from hvae.ops.philox import derive_seed

POINTS, DIMS = 256, 4
A = torch.tensor([[0.8, -0.3], [0.2, 0.5], [-0.6, 0.4]], dtype=torch.float64)
B = torch.tensor(
    [[0.9, 0.1, -0.2], [0.0, 0.7, 0.3], [0.4, -0.5, 0.6], [-0.3, 0.2, 0.8]], dtype=torch.float64
)
C = torch.tensor([[0.3, 0.0], [-0.2, 0.4], [0.1, 0.1], [0.0, -0.5]], dtype=torch.float64)
Z2_STD = torch.tensor([0.7, 0.9, 0.8], dtype=torch.float64)
X_STD = torch.tensor([0.8, 1.0, 0.9, 1.1], dtype=torch.float64)


class Points:
    """Draws of the model itself, in steps of 1/32."""

    name, split = "linear-gaussian", "test"
    sha256 = "5eed"

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        x = LinearGaussianLadder.marginal().covariance_matrix
        drawn = torch.randn(POINTS, DIMS, generator=generator, dtype=torch.float64)
        values = drawn @ torch.linalg.cholesky(x).T
        self.images = (values * 32 + 128).round().clamp(0, 255).to(torch.uint8)
        self.images = self.images.view(POINTS, 1, 2, 2)

    def __len__(self) -> int:
        return POINTS

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]

    def identity(self) -> "Points":
        return self


class LinearGaussianLadder:
    """Two levels, with what `evaluate_likelihood` asks of a model.

    The posterior of each level is diagonal, `shift` of its standard deviations off, and `widen`
    times as wide. Both 0 and 1 leave what a diagonal posterior misses, or nothing where the exact
    one is diagonal.
    """

    device = torch.device("cpu")
    num_dims = DIMS

    def __init__(self, shift: float = 0.0, widen: float = 1.0) -> None:
        self.shift, self.widen = shift, widen
        self.largest_batch = 0

    @staticmethod
    def marginal() -> MultivariateNormal:
        """The exact p(x)."""
        on_z1 = B @ A + C
        covariance = on_z1 @ on_z1.T + B @ Z2_STD.square().diag() @ B.T + X_STD.square().diag()
        return MultivariateNormal(torch.zeros(DIMS, dtype=torch.float64), covariance)

    @staticmethod
    def data(images: Tensor) -> Tensor:
        return (images.flatten(1).double() - 128) / 32

    def log_prob(self, images: Tensor) -> Tensor:
        return self.marginal().log_prob(self.data(images))

    def __call__(self, images: Tensor, *, rng: Tensor) -> Elbo:
        nll, levels = self._run(images, rng)
        kl = torch.stack([level.kl for level in levels], 1)
        elbo = -(nll + kl.sum(1))
        return Elbo(nll, kl, elbo, nats_to_bits_per_dim(elbo, DIMS))

    def log_weights(self, images: Tensor, *, rng: Tensor) -> Tensor:
        nll, levels = self._run(images, rng)
        return -nll + sum(level.log_ratio for level in levels)

    def _run(self, images: Tensor, rng: Tensor) -> tuple[Tensor, list["Level"]]:
        self.largest_batch = max(self.largest_batch, len(images))
        x = self.data(images)
        zeros, identity = torch.zeros(len(x), 2, dtype=x.dtype), torch.eye(2, dtype=x.dtype)
        # z1 | x, with z2 integrated out
        noise = B @ Z2_STD.square().diag() @ B.T + X_STD.square().diag()
        mean, covariance = condition(zeros, identity, B @ A + C, noise, x)
        z1 = Level.draw(self._posterior(mean, covariance), buffer(zeros, torch.ones(2)), rng, 0)
        # z2 | z1, x
        prior_mean = z1.z @ A.T
        mean, covariance = condition(
            prior_mean, Z2_STD.square().diag(), B, X_STD.square().diag(), x - z1.z @ C.T
        )
        z2 = Level.draw(self._posterior(mean, covariance), buffer(prior_mean, Z2_STD), rng, 1)
        residual = (x - z2.z @ B.T - z1.z @ C.T) / X_STD
        nll = residual.square().sum(1) / 2 + X_STD.log().sum() + DIMS / 2 * math.log(2 * math.pi)
        return nll, [z1, z2]

    def _posterior(self, mean: Tensor, covariance: Tensor) -> Tensor:
        # Of all diagonal normals the one with these variances is nearest to the exact one.
        std = torch.linalg.inv(covariance).diagonal().rsqrt()
        return buffer(mean + self.shift * std, self.widen * std)


class Level:
    """One draw from a posterior: what the ladder of a real model keeps of it."""

    def __init__(self, z: Tensor, kl: Tensor, log_ratio: Tensor) -> None:
        self.z, self.kl, self.log_ratio = z, kl, log_ratio

    @classmethod
    def draw(cls, q: Tensor, p: Tensor, rng: Tensor, group: int) -> "Level":
        drawn = ops.gaussian_latent(q, p, rng=rng, stream=group, std="log", floor=0.0)
        ratio = log_density_ratio(drawn.z, q, p, "log", 0.0)
        return cls(drawn.z.squeeze(2), drawn.kl, ratio)


def buffer(mean: Tensor, std: Tensor) -> Tensor:
    """(N, 2Z, 1): what a head would put out for a normal, `std: log`."""
    return torch.cat([mean, std.to(mean).log().expand_as(mean)], 1).unsqueeze(2)


def condition(
    mean: Tensor, covariance: Tensor, matrix: Tensor, noise: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of z ~ N(mean, covariance) given x = matrix z + N(0, noise)."""
    gain = covariance @ matrix.T @ torch.linalg.inv(matrix @ covariance @ matrix.T + noise)
    return mean + (x - mean @ matrix.T) @ gain.T, covariance - gain @ matrix @ covariance


def nats(bits_per_dim: float) -> float:
    """Mean log-probability of a point."""
    return -bits_per_dim * math.log(2) * DIMS


@pytest.fixture(scope="module")
def points() -> Iterator[Points]:
    return Points()


@pytest.mark.parametrize(("shift", "widen"), [(0.2, 1.1), (0.3, 1.15), (-0.25, 0.95)])
def test_a_thousand_importance_samples_close_the_gap_of_the_elbo(points, shift, widen):
    model = LinearGaussianLadder(shift, widen)
    exact = model.log_prob(points.images).mean().item()
    score = evaluate_likelihood(model, points, importance=1000, batch=512)
    assert model.largest_batch <= 512
    assert 0.1 < exact - mean_elbo(model, points) < 0.5
    assert nats(score.importance_bits_per_dim) == pytest.approx(exact, abs=0.01)
    assert score.estimators == ("ELBO", "IWAE-1000")


def mean_elbo(model: LinearGaussianLadder, points: Points) -> float:
    """Over 200 draws for each point."""
    rows = points.images.repeat_interleave(200, 0)
    return model(rows, rng=ops.make_rng(1)).elbo.mean().item()


def test_the_bound_is_that_of_all_weights_at_once(points):
    """However the samples are spread over passes, and however many there are."""
    model = LinearGaussianLadder(0.2, 1.1)
    for importance in (2, 65, 1000):
        score = evaluate_likelihood(model, points, importance=importance, images=8, batch=64)
        rows = points.images[:8].repeat_interleave(importance, 0)
        rng = ops.make_rng(derive_seed(0, "evaluation"))
        bound = importance_bound(model.log_weights(rows, rng=rng).view(8, importance))
        assert nats(score.importance_bits_per_dim) == pytest.approx(bound.mean().item(), rel=1e-12)


def test_weights_of_the_wrong_ladder_are_noticed(points):
    """A posterior that is scored at half its width misses the exact value by far."""

    class Wrong(LinearGaussianLadder):
        def log_weights(self, images: Tensor, *, rng: Tensor) -> Tensor:
            return super().log_weights(images, rng=rng) + 5 * math.log(0.5)

    exact = Wrong().log_prob(points.images).mean().item()
    score = evaluate_likelihood(Wrong(), points, importance=50, batch=512)
    assert abs(nats(score.importance_bits_per_dim) - exact) > 1


def test_kl_of_each_level_is_reported(points):
    score = evaluate_likelihood(LinearGaussianLadder(), points)
    assert len(score.kl_per_group) == 2
    assert min(score.kl_per_group) > 0.3
    assert score.kl == pytest.approx(sum(score.kl_per_group))
