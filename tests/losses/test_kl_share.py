"""KL-share weights: who pays how much of its KL."""

import math

import pytest
import torch
from torch import Tensor

from hvae.losses import kl_share_weights, objective
from hvae.losses.kl_share import kl_shares
from hvae.models import Elbo


def kl_at(u: list[float]) -> Tensor:
    """KL of one image whose groups take u times their share, with a sum of 1 nat."""
    return (torch.tensor(u, dtype=torch.float64) * kl_shares(len(u)))[None]


@pytest.mark.parametrize("groups", [1, 2, 5, 78])
def test_shares_rise_toward_the_fine_groups_and_leave_a_third_free(groups):
    shares = kl_shares(groups)
    assert shares.sum().item() == pytest.approx(0.667)
    assert (shares.diff() > 0).all()
    if groups > 1:
        assert (shares[-1] / shares[0]).item() == pytest.approx(1010 / 11)
    if groups == 5:  # exp(linspace(0, ln 1000, 5)) + 10
        parts = [1000 ** (i / 4) + 10 for i in range(5)]
        assert shares.tolist() == pytest.approx([0.667 * p / sum(parts) for p in parts])


@pytest.mark.parametrize(
    ("u", "weight"),
    [
        (0.0, 0.1), (0.05, 0.1), (0.1, 0.1), (0.4, 0.4), (1.0, 1.0), (1.7, 1.0), (2.0, 1.0),
        (2.25, 1.25), (3.0, 2.0), (40.0, 2.0),
    ],
)  # fmt: skip
def test_a_group_is_weighed_by_how_much_of_its_share_it_takes(u, weight):
    shares = kl_shares(3)
    first = u * shares[0]
    kl = torch.stack((first, 1 - first, torch.zeros(()).double()))[None]
    assert kl_share_weights(kl)[0, 0].item() == pytest.approx(weight)


def test_weights_are_of_each_image_and_scale_free():
    kl = torch.tensor([[1.0, 5.0, 3.0], [9.0, 0.0, 2.0]])
    both = kl_share_weights(kl)
    assert torch.equal(both[1:], kl_share_weights(kl[1:]))
    torch.testing.assert_close(kl_share_weights(1e-3 * kl), both)


@pytest.mark.parametrize("value", [0.0, -1e-9])
def test_no_kl_at_all_has_finite_weights(value):
    assert kl_share_weights(torch.full((2, 3), value)).isfinite().all()


def test_weights_carry_no_gradient_and_reach_the_objective():
    kl = torch.tensor([[3.0, 1.0], [1.0, 3.0]], requires_grad=True)
    nll = torch.tensor([30.0, 50.0])
    elbo = Elbo(nll, kl, -(nll + kl.sum(1)), nll)
    value = objective(elbo, 10, beta=0.5, kl_share=True)
    weights = kl_share_weights(kl)
    assert not weights.requires_grad
    assert value.item() == pytest.approx((40 + 0.5 * (weights * kl).sum(1).mean().item()) / 10)
    value.backward()
    torch.testing.assert_close(kl.grad, 0.5 * weights / 2 / 10)


def test_nan_stays_nan():
    assert kl_share_weights(torch.tensor([[math.nan, 1.0]])).isnan().all()
