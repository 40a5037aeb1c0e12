"""The adversarial losses against their formulas, and their gradients against autograd."""

import math

import pytest
import torch
from torch import nn

from hvae.losses.adversarial import (
    discriminator_loss,
    feature_matching,
    generator_loss,
    gradient_penalty,
    lecam,
    low_pass,
)

PAIRINGS = ("relativistic", "hinge", "non_saturating")


@pytest.fixture
def logits():
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(7, generator=draw, dtype=torch.float64) for _ in range(2)]


def softplus(x):
    return math.log1p(math.exp(x))


def test_relativistic_losses_compare_pairs(logits):
    real, fake = logits
    wanted = sum(softplus(f - r) for r, f in zip(real.tolist(), fake.tolist(), strict=True)) / 7
    assert discriminator_loss(real, fake).item() == pytest.approx(wanted)
    wanted = sum(softplus(r - f) for r, f in zip(real.tolist(), fake.tolist(), strict=True)) / 7
    assert generator_loss(real, fake).item() == pytest.approx(wanted)
    shifted = discriminator_loss(real + 5, fake + 5)
    assert shifted.item() == pytest.approx(discriminator_loss(real, fake).item())
    swapped = real[torch.tensor([1, 0, 2, 3, 4, 5, 6])]
    assert discriminator_loss(swapped, fake) != discriminator_loss(real, fake)


def test_hinge_losses(logits):
    real, fake = logits
    wanted = sum(max(0, 1 - r) for r in real.tolist()) + sum(max(0, 1 + f) for f in fake.tolist())
    assert discriminator_loss(real, fake, "hinge").item() == pytest.approx(wanted / 7)
    assert generator_loss(real, fake, "hinge").item() == pytest.approx(-sum(fake.tolist()) / 7)


def test_non_saturating_losses(logits):
    real, fake = logits
    wanted = sum(softplus(-r) for r in real.tolist()) + sum(softplus(f) for f in fake.tolist())
    assert discriminator_loss(real, fake, "non_saturating").item() == pytest.approx(wanted / 7)
    wanted = sum(softplus(-f) for f in fake.tolist()) / 7
    assert generator_loss(real, fake, "non_saturating").item() == pytest.approx(wanted)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_the_two_pull_fakes_in_opposite_directions(logits, pairing):
    real, fake = logits
    fake = fake.clone().requires_grad_()
    (down,) = torch.autograd.grad(discriminator_loss(real, fake, pairing), fake)
    (up,) = torch.autograd.grad(generator_loss(real, fake, pairing), fake)
    assert (down >= 0).all()
    assert (up < 0).all()


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 1)).double()


def test_the_penalty_is_the_squared_norm_of_the_gradient_of_each_image():
    network = two_layers()
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    jacobian = torch.stack([torch.autograd.functional.jacobian(network, row)[0] for row in x])
    penalty = gradient_penalty(x, network(x).squeeze(1))
    assert penalty.item() == pytest.approx(jacobian.square().sum(1).mean().item())


def test_the_penalty_can_be_differentiated_in_the_weights():
    network = two_layers()
    x = torch.randn(4, 6, dtype=torch.float64)
    names = [name for name, _ in network.named_parameters()]

    def penalty(*weights):
        images = x.clone().requires_grad_()
        state = dict(zip(names, weights, strict=True))
        logits = torch.func.functional_call(network, state, (images,)).squeeze(1)
        return gradient_penalty(images, logits)

    weights = [weight.detach().clone().requires_grad_() for weight in network.parameters()]
    assert torch.autograd.gradcheck(penalty, weights)


def test_the_penalty_needs_images_with_a_gradient():
    network = two_layers()
    x = torch.randn(4, 6, dtype=torch.float64)
    with pytest.raises(ValueError, match="require a gradient"):
        gradient_penalty(x, network(x).squeeze(1))


def test_ops_without_a_second_derivative_are_refused_loudly():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return 2 * x * gradient

    x = torch.randn(4, 6, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient_penalty(x, Once.apply(x).sum(1))


def test_lecam_counts_logits_beyond_the_average_of_the_other_kind():
    real, fake = torch.tensor([2.0, -3.0]), torch.tensor([1.0, -4.0])
    found = lecam(real, fake, torch.tensor(0.5), torch.tensor(-1.0))
    assert found.item() == pytest.approx((3.0**2 + 0) / 2 + (0 + 4.5**2) / 2)


def test_feature_matching_weighs_each_map_by_its_size():
    real = [torch.full((2, 3, 4, 4), 2.0), torch.full((2, 8, 2, 2), 100.0)]
    fake = [maps * factor for maps, factor in zip(real, (1.5, 0.9), strict=True)]
    assert feature_matching(fake, real).item() == pytest.approx((0.5 + 0.1) / 2)
    fake = [maps.clone().requires_grad_() for maps in fake]
    wanted = [maps.clone().requires_grad_() for maps in real]
    feature_matching(fake, wanted).backward()
    assert fake[0].grad is not None
    assert wanted[0].grad is None


@pytest.mark.parametrize("shape", [(2, 3, 16), (2, 3, 8, 12), (2, 1, 8, 4, 4)])
def test_a_high_pass_correction_does_not_move_the_low_pass(shape):
    x = torch.randn(shape)
    signs = torch.ones(shape[-1])
    signs[::2] = -1
    assert low_pass(x + 0.3 * signs, x).item() == pytest.approx(0, abs=1e-12)
    assert low_pass(x + 0.3, x).item() == pytest.approx(0.09, rel=1e-4)


def test_sides_that_do_not_divide_are_cut():
    x = torch.randn(2, 1, 10, 7)
    y = x.clone()
    y[..., 8:, :] += 1
    y[..., 4:] += 1
    assert low_pass(y, x).item() == 0
