"""Importance weights: against their definition, and as estimates of a whole distribution."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from hvae import ops
from hvae.distributions.gaussian import log_density_ratio

# One datum of one bit: every value can be summed over.
COIN = {
    "size": (1,),
    "encoder": "1x1",
    "decoder": "1x2",
    "likelihood": {"mixtures": 2, "bits": 1},
}
VALUES = torch.tensor([0, 255], dtype=torch.uint8)


@pytest.mark.parametrize("preset", ["hvae", "vdvae"])
def test_weights_are_the_ratio_of_the_joint_to_the_posterior(
    make_model, random_images, monkeypatch, preset
):
    model = make_model(preset=preset, channels=3).double()
    x = random_images(model, 3)
    latent, ratios = ops.gaussian_latent, []

    def spy(q: Tensor, p: Tensor, state: Tensor, **options: object) -> ops.GaussianLatent:
        result = latent(q, p, state, **options)
        posterior, prior = (normal(params, preset) for params in (q, p))
        ratio = prior.log_prob(result.z) - posterior.log_prob(result.z)
        ratios.append(ratio.flatten(1).sum(1))
        return result

    def normal(params: Tensor, preset: str) -> Normal:
        mean, raw = params[:, :2], params[:, 2:4]
        return Normal(mean, raw.exp() if preset == "vdvae" else 1e-3 + torch.log2(1 + 2**raw))

    monkeypatch.setattr(ops, "gaussian_latent", spy)
    rng = ops.make_rng(2)
    weights = model.log_weights(x, rng=rng)
    expected = -model(x, rng=rng).nll + sum(ratios[: model.num_groups])
    assert weights.dtype == torch.float64
    torch.testing.assert_close(weights, expected, rtol=1e-10, atol=0)


def test_weights_have_the_elbo_as_their_mean(make_model, random_images):
    model = make_model().double()
    x = random_images(model, 1).expand(4000, -1, -1, -1)
    rng = ops.make_rng(0)
    with torch.no_grad():
        difference = model.log_weights(x, rng=rng) - model(x, rng=rng).elbo
    error = difference.mean() / (difference.std() / math.sqrt(len(x)))
    assert abs(error.item()) < 4


def probabilities(model, draws: int) -> Tensor:
    """Importance estimates of the probability of each value, and their errors, (2, 2)."""
    x = VALUES.repeat_interleave(draws).view(-1, 1, 1)
    with torch.no_grad():
        weights = model.log_weights(x, rng=ops.make_rng(1)).exp().view(2, draws)
    return torch.stack([weights.mean(1), weights.std(1) / math.sqrt(draws)])


@pytest.mark.parametrize("preset", ["hvae", "vdvae"])
def test_probabilities_sum_to_one_over_the_data(make_model, preset):
    model = make_model(preset=preset, **COIN)
    mean, error = probabilities(model, 20_000)
    assert error.max() < 0.01
    assert abs(mean.sum().item() - 1) < 4 * error.norm().item()


def test_samples_have_the_probability_that_is_scored(make_model):
    model = make_model(**COIN)
    with torch.no_grad():
        model.decoder.out_conv.bias[2:4] += 0.3  # away from a fair coin
    mean, error = probabilities(model, 20_000)
    n = 1600
    ones = (model.sample(n) == 255).float().mean().item()
    spread = math.sqrt(ones * (1 - ones) / n)
    assert 0.55 < ones < 0.95
    assert abs(ones - mean[1].item()) < 4 * math.hypot(spread, error[1].item())


@pytest.mark.parametrize(("std", "floor"), [("log", 0.0), ("softplus", 1e-3)])
def test_the_density_ratio_is_zero_where_posterior_and_prior_agree(std, floor):
    q = torch.randn(2, 4, 3)
    p = torch.cat([q, torch.randn(2, 5, 3)], 1)
    z = torch.randn(2, 2, 3)
    ratio = log_density_ratio(z, q, p, std, floor)
    assert ratio.dtype == torch.float64
    assert not ratio.any()
