"""The logistic mixture as a likelihood of uint8 images, at 8 bits and fewer."""

import math

import pytest
import torch
from torch import Tensor

from hvae import ops
from hvae.distributions import LikelihoodConfig, LogisticMixture, make_likelihood

BITS = [1, 2, 5, 8]


def every_pixel() -> Tensor:
    """All uint8 values, (1, 1, 256)."""
    return torch.arange(256, dtype=torch.uint8).view(1, 1, 256)


@pytest.mark.parametrize(("channels", "parameters"), [(1, 3), (2, 6), (3, 10), (4, 15)])
@pytest.mark.parametrize("mixtures", [1, 5])
def test_a_configuration_names_a_likelihood(channels, parameters, mixtures):
    likelihood = make_likelihood(LikelihoodConfig(mixtures=mixtures, bits=5), channels)
    assert likelihood.num_parameters == parameters * mixtures
    assert likelihood.bits == 5


@pytest.mark.parametrize("bits", BITS)
def test_the_network_sees_all_bits_scaled_to_one(bits):
    x = LogisticMixture(1, bits=bits).network_input(every_pixel())
    assert x.dtype == torch.float32
    assert x.min() == -1
    assert x.max() == 1
    assert len(x.unique()) == 256


@pytest.mark.parametrize("bits", BITS)
def test_probabilities_of_levels_sum_to_one(bits):
    likelihood = LogisticMixture(1, mixtures=2, bits=bits)
    params = torch.randn(1, 6, 1, dtype=torch.float64)
    step = 2 ** (8 - bits)
    x = every_pixel()[..., ::step].movedim(2, 0)
    log_prob = likelihood(params.expand(len(x), -1, -1)).log_prob(x)
    assert log_prob.shape == (2**bits,)
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("bits", BITS)
def test_dropped_bits_do_not_matter(bits):
    params = torch.randn(1, 6, 256, dtype=torch.float64)
    distribution = LogisticMixture(1, mixtures=2, bits=bits)(params)
    low_bits_cleared = every_pixel() >> (8 - bits) << (8 - bits)
    assert torch.equal(
        distribution.log_prob(every_pixel()), distribution.log_prob(low_bits_cleared)
    )


@pytest.mark.parametrize("bits", BITS)
def test_draws_lie_on_the_levels_spread_over_all_of_0_to_255(bits):
    params = torch.randn(4, 20, 16, 16)
    drawn = LogisticMixture(3, mixtures=2, bits=bits)(params).sample(ops.make_rng(0))
    assert drawn.dtype == torch.uint8
    assert drawn.shape == (4, 3, 16, 16)
    levels = [round(k * 255 / (2**bits - 1)) for k in range(2**bits)]
    assert set(drawn.unique().tolist()) <= set(levels)
    assert {0, 255} <= set(drawn.unique().tolist())


@pytest.mark.parametrize("bits", BITS)
def test_a_sharp_component_is_drawn_scored_and_averaged_at_its_level(bits):
    level, top = 2**bits // 2, 2**bits - 1
    centre = 2 * level / top - 1
    params = torch.tensor([0.0, centre, -7.0], dtype=torch.float64).view(1, 3, 1)
    distribution = LogisticMixture(1, mixtures=1, bits=bits)(params)
    value = round(level * 255 / top)
    image = torch.full((1, 1, 1), value, dtype=torch.uint8)
    assert distribution.sample(ops.make_rng(0)).item() == value
    assert distribution.mean_image().item() == value
    assert distribution.mean().item() == pytest.approx(level * 255 / top)
    assert distribution.log_prob(image).exp().item() > 0.7


def test_log_probabilities_are_summed_over_an_image():
    params, x = torch.randn(2, 30, 4, 4), torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    log_prob = LogisticMixture(3, mixtures=3)(params).log_prob(x)
    nll = ops.logistic_mixture_nll(params, x, reduce="pixel")
    torch.testing.assert_close(log_prob, -nll.sum((1, 2)))


def test_the_temperature_of_draws_scales_the_components():
    params = torch.tensor([0.0, 0.0, -1.0]).view(1, 3, 1).expand(1, 3, 20_000)
    distribution = LogisticMixture(1, mixtures=1)(params)
    whole, half = (
        distribution.sample(ops.make_rng(0), temperature=t).double().std() for t in (0.3, 0.15)
    )
    assert whole.item() == pytest.approx(127.5 * 0.3 * math.exp(-1) * math.pi / 3**0.5, rel=0.03)
    assert half.item() == pytest.approx(whole.item() / 2, rel=0.03)


def test_output_noise_is_not_that_of_a_latent():
    params = torch.zeros(1, 3, 64)
    distribution = LogisticMixture(1, mixtures=1)(params)
    drawn = distribution.sample(ops.make_rng(0))
    for stream in range(4):
        other = ops.logistic_mixture_sample(params, 1, rng=ops.make_rng(0), stream=stream)
        assert not torch.equal(drawn.long(), other)
