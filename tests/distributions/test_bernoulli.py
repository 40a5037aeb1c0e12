"""What the number of a grey image is."""

import pytest
import torch

from hvae import ops
from hvae.distributions import Bernoulli


def test_a_grey_image_scores_what_its_binary_draws_score_on_average():
    params = torch.randn(1, 1, 6, dtype=torch.float64)
    grey = torch.tensor([0, 30, 100, 128, 200, 255], dtype=torch.uint8)
    draws = 20_000
    uniform = ops.philox_uniform(ops.make_rng(0), 0, 2, draws, torch.float64).flatten(1)[:, :6]
    binary = (uniform < grey / 255).to(torch.uint8).unsqueeze(1) * 255
    scores = Bernoulli(1)(params.expand(draws, -1, -1)).log_prob(binary)
    score = Bernoulli(1)(params).log_prob(grey.view(1, 1, 6)).item()
    assert scores.mean().item() == pytest.approx(score, abs=4 * scores.std().item() / draws**0.5)


def test_the_best_logit_of_a_grey_value_is_its_own():
    """So the mean of a trained model is the grey image, and the least score is its entropy."""
    grey = torch.tensor([[[51]]], dtype=torch.uint8)
    params = torch.tensor([[[0.2]]], dtype=torch.float64).logit().requires_grad_()
    score = Bernoulli(1)(params).log_prob(grey)
    (gradient,) = torch.autograd.grad(score.sum(), params)
    assert abs(gradient.item()) < 1e-15
    entropy = torch.special.entr(torch.tensor([0.2, 0.8], dtype=torch.float64)).sum()
    assert -score.item() == pytest.approx(entropy.item())
    assert Bernoulli(1)(params).mean().item() == pytest.approx(51)


def test_the_temperature_divides_the_logits():
    params = torch.full((1, 1, 50_000), 1.0)
    ones = (Bernoulli(1)(params).sample(ops.make_rng(0), temperature=0.5) == 255).double().mean()
    assert ones.item() == pytest.approx(torch.tensor(2.0).sigmoid().item(), abs=0.007)
