"""Changes to a discriminator's input: as often as asked, keyed by image, twice differentiable."""

import pytest
import torch

from hvae.losses.augment import augment
from hvae.ops import make_rng

SIZES = {1: (32,), 2: (16, 24), 3: (8, 8, 8)}


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_nothing_happens_at_probability_0(ndim):
    x = torch.randn(4, 2, *SIZES[ndim])
    assert augment(x, 0.0, make_rng(1)) is x


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_every_change_is_there(ndim):
    row = torch.arange(1.0, 33.0) if ndim == 1 else torch.rand(SIZES[ndim]) + 1
    x = row.expand(400, 1, *SIZES[ndim])
    found = augment(x, 0.5, make_rng(1))
    holes = (found == 0).flatten(1).any(1)
    assert 0.4 < holes.double().mean() < 0.6
    whole = found[~holes].flatten(1)
    same = (whole == row.flatten()).all(1)
    mirrored = (whole == row.flip(-1).flatten()).all(1)
    assert 0.2 < same.double().mean() < 0.45  # neither mirrored nor moved; some move by nothing
    assert 0.2 < mirrored.double().mean() < 0.45
    assert 0.2 < (~same & ~mirrored).double().mean() < 0.6
    assert set(whole.unique().tolist()) <= set(row.unique().tolist())


def test_shifts_repeat_the_border():
    x = torch.arange(16.0).add(1).expand(200, 1, 16)
    found = augment(x, 0.8, make_rng(2))
    whole = found[(found != 0).flatten(1).all(1), 0]
    steps = whole.diff(dim=1).abs()
    assert (steps.sum(1) >= 16 - 1 - 2).all()  # at most an eighth of the side is lost
    assert set(steps.unique().tolist()) == {0.0, 1.0}


def test_an_image_is_changed_alike_in_any_batch():
    x = torch.randn(6, 3, 8, 8)
    whole = augment(x, 0.5, make_rng(3, 10))
    assert torch.equal(augment(x[4:], 0.5, make_rng(3, 14)), whole[4:])
    assert not torch.equal(augment(x, 0.5, make_rng(4, 10)), whole)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_gradients(ndim):
    x = torch.randn(3, 1, *(4,) * ndim, dtype=torch.float64, requires_grad=True)

    def cubed(images):
        return augment(images, 0.8, make_rng(5)) ** 3

    assert torch.autograd.gradcheck(cubed, x)
    assert torch.autograd.gradgradcheck(cubed, x)
