"""The published formula: what it gives, and where it is no likelihood."""

import pytest
import torch
from torch import Tensor

from hvae.distributions import LikelihoodConfig, make_likelihood
from hvae.distributions.compat_mixture import compat_nll, compat_target
from hvae.ops.philox import make_rng

# Mass over all 32 levels of a 5-bit target, one grey component of mean 0.1, by log-scale.
MASS_AT_5_BITS = {-7: 1.193, -5: 1.064, -4: 1.030, -3: 1.028, -2: 1.027, -1: 0.940}


def component(log_scale: float, mean: float = 0.1, pixels: int = 1) -> Tensor:
    """Head outputs (1, 3, pixels) of one grey component."""
    values = torch.tensor([0.0, mean, log_scale], dtype=torch.float64)
    return values.view(1, 3, 1).expand(1, 3, pixels)


def total_mass(log_scale: float, bits: int) -> float:
    levels = torch.arange(0, 256, 2 ** (8 - bits), dtype=torch.uint8).view(-1, 1, 1)
    params = component(log_scale).expand(len(levels), 3, 1)
    return compat_nll(params, levels, bits=bits).neg().exp().sum().item()


@pytest.mark.parametrize(("log_scale", "mass"), MASS_AT_5_BITS.items())
def test_masses_at_5_bits_do_not_sum_to_one(log_scale, mass):
    assert total_mass(log_scale, 5) == pytest.approx(mass, abs=6e-4)


@pytest.mark.parametrize("log_scale", MASS_AT_5_BITS)
def test_masses_at_8_bits_sum_to_one(log_scale):
    assert total_mass(log_scale, 8) == pytest.approx(1.0, abs=1e-3)


def test_targets_stand_at_the_lower_end_of_their_bins():
    x = torch.tensor([0, 7, 8, 255], dtype=torch.uint8)
    wanted = torch.tensor([0.0, 0.0, 8.0, 248.0])
    assert torch.equal(compat_target(x, 5), (wanted - 127.5) * (1 / 127.5))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [5, 8])
def test_the_forms_differ_in_their_likelihood_alone(channels, bits):
    torch.manual_seed(0)
    forms = {
        form: make_likelihood(LikelihoodConfig(mixtures=2, bits=bits, form=form), channels)
        for form in ("exact", "compat")
    }
    params = torch.randn(2, forms["exact"].num_parameters, 4, 4)
    x = torch.randint(0, 256, (2, channels, 4, 4), dtype=torch.uint8)
    exact, compat = forms["exact"](params), forms["compat"](params)
    assert torch.equal(exact.mean(), compat.mean())
    assert torch.equal(forms["exact"].network_input(x), forms["compat"].network_input(x))
    relative = (compat.log_prob(x) / exact.log_prob(x) - 1).abs().max().item()
    assert (relative < 1e-4) if bits == 8 else (1e-3 < relative < 0.1)


def test_the_gradient_is_finite_and_that_of_the_formula():
    torch.manual_seed(0)
    params = (3 * torch.randn(1, 20, 3, 3, dtype=torch.float64)).requires_grad_()
    x = torch.tensor([0, 1, 100, 254, 255], dtype=torch.uint8)[torch.randint(5, (1, 3, 3, 3))]
    assert torch.autograd.gradcheck(lambda p: compat_nll(p, x), params)


@pytest.mark.parametrize("mean", [0.1, 0.99])
def test_draws_are_truncated(mean):
    """Level k is drawn from [k, k + 1) / 127.5 - 1, and 255 from the upper tail alone."""
    n, scale = 100_000, 0.05
    likelihood = make_likelihood(LikelihoodConfig(mixtures=1, form="compat"), 1)
    params = component(torch.tensor(scale).log().item(), mean, n)
    drawn = likelihood(params).sample(make_rng(3)).flatten()
    edges = torch.arange(1, 256, dtype=torch.float64) / 127.5 - 1
    cdf = torch.sigmoid((edges - mean) / scale)
    wanted = torch.diff(torch.cat((torch.zeros(1), cdf, torch.ones(1)))) * n
    counts = torch.bincount(drawn.long(), minlength=256).double()
    common = wanted >= 10
    chi2 = ((counts - wanted)[common] ** 2 / wanted[common]).sum().item()
    degrees = int(common.sum())
    assert abs(chi2 - degrees) < 4 * (2 * degrees) ** 0.5
    assert counts[~common].sum().item() == pytest.approx(wanted[~common].sum().item(), abs=60)


def test_each_colour_is_clipped_before_it_feeds_the_next():
    likelihood = make_likelihood(LikelihoodConfig(mixtures=1, form="compat"), 3)
    params = torch.zeros(1, 10, 1)
    params[0, 1] = 9.0  # red lies far beyond the range and counts as 1
    params[0, 3] = 9.0  # coefficient of red in green: tanh(9) = 1
    params[0, [2, 5, 8]] = -20.0
    params[0, 4] = -0.5
    image = likelihood(params).sample(make_rng(0), temperature=0.0)
    assert image.flatten().tolist() == [255, 191, 127]
