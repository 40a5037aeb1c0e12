"""The objective: the ELBO, its KL weight and its free bits."""

import pytest
import torch
from torch import Tensor

from hvae.losses import objective
from hvae.models import Elbo


def elbo(nll: Tensor, kl: Tensor) -> Elbo:
    total = -(nll + kl.sum(1))
    return Elbo(nll, kl, total, total)


NLL = torch.tensor([30.0, 50.0])
KL = torch.tensor([[1.0, 4.0, 0.0], [3.0, 8.0, 0.0]])  # means 2, 6 and 0


def test_without_helps_it_is_minus_the_elbo_per_dimension():
    assert objective(elbo(NLL, KL), 10).item() == pytest.approx((40 + 8) / 10)


def test_beta_weighs_the_kl_alone():
    assert objective(elbo(NLL, KL), 10, beta=0.5).item() == pytest.approx((40 + 4) / 10)


@pytest.mark.parametrize(
    ("beta", "free_bits", "kl"),
    [(1.0, 1.0, 2 + 6 + 1), (1.0, 4.0, 4 + 6 + 4), (0.5, 2.0, 2 + 3 + 2), (0.0, 1.0, 3)],
)
def test_free_bits_are_counted_for_each_group_of_the_batch(beta, free_bits, kl):
    value = objective(elbo(NLL, KL), 10, beta=beta, free_bits=free_bits)
    assert value.item() == pytest.approx((40 + kl) / 10)


def test_groups_under_their_free_bits_have_no_gradient():
    kl = KL.clone().requires_grad_()
    objective(elbo(NLL, kl), 10, free_bits=3.0).backward()
    assert kl.grad.tolist() == [[0, pytest.approx(0.05), 0]] * 2


def test_the_batch_is_averaged_before_the_maximum():
    """An image below the free bits still pays where its batch is above them."""
    kl = torch.tensor([[0.0], [10.0]], requires_grad=True)
    objective(elbo(NLL, kl), 1, free_bits=3.0).backward()
    assert kl.grad.tolist() == [[0.5], [0.5]]
