"""The mixture for any number of channels is the fused one where both exist."""

import pytest
import torch
from torch import Tensor

from hvae import ops
from hvae.distributions import LogisticMixture
from hvae.distributions.logistic_mixture import GeneralMixtureImages, IndependentMixtureImages
from hvae.errors import UserError
from hvae.ops.philox import OUTPUT_STREAM

M = 4


def fused_params(channels: int) -> Tensor:
    params = torch.randn(2, M * (10 if channels == 3 else 3), 5, 3, dtype=torch.float64)
    slots = 3 if channels == 3 else 2
    params[:, M:].unflatten(1, (channels, slots, M))[:, :, 1] -= 2
    return params


def general_params(params: Tensor, channels: int) -> Tensor:
    """The same parameters in the order of the general mixture."""
    slots = 3 if channels == 3 else 2
    by_colour = params[:, M:].unflatten(1, (channels, slots, M))
    parts = [params[:, :M], by_colour[:, :, 0].flatten(1, 2), by_colour[:, :, 1].flatten(1, 2)]
    if channels == 3:
        parts.append(by_colour[:, :, 2].flatten(1, 2))
    return torch.cat(parts, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [1, 5, 8])
def test_scores_draws_and_means_are_those_of_the_fused_op(channels, bits):
    params = fused_params(channels)
    fused = LogisticMixture(channels, mixtures=M, bits=bits)(params)
    general = GeneralMixtureImages(general_params(params, channels), channels, bits)
    x = torch.randint(256, (2, channels, 5, 3), dtype=torch.uint8)
    torch.testing.assert_close(general.log_prob(x), fused.log_prob(x), rtol=1e-11, atol=0)
    torch.testing.assert_close(general.mean(), fused.mean(), rtol=1e-11, atol=1e-11)
    rng = ops.make_rng(3, 5)
    assert torch.equal(general.sample(rng), fused.sample(rng))


@pytest.mark.parametrize("channels", [2, 3, 4, 5])
def test_without_coupling_one_component_is_a_product_of_grey_ones(channels):
    params = torch.randn(2, 1 + 2 * channels, 4, dtype=torch.float64)
    params[:, 1 + channels :] -= 2
    together = LogisticMixture(channels, mixtures=1, coupled=False)(params)
    assert isinstance(together, IndependentMixtureImages)
    x = torch.randint(256, (2, channels, 4), dtype=torch.uint8)
    alone = 0
    for c in range(channels):
        each = params[:, [0, 1 + c, 1 + channels + c]]
        alone = alone + LogisticMixture(1, mixtures=1)(each).log_prob(x[:, c : c + 1])
    torch.testing.assert_close(together.log_prob(x), alone, rtol=1e-11, atol=0)


def test_channels_share_the_component_of_their_pixel():
    """Two sharp components: either both channels are dark, or both are bright."""
    means = [-0.8, 0.8, -0.6, 0.6]
    params = torch.tensor([0.0, 0.0, *means, *[-7.0] * 4]).view(1, 10, 1).expand(1, 10, 4000)
    images = LogisticMixture(2, mixtures=2, coupled=False)(params)
    red, green = images.sample(ops.make_rng(0))[0].long()
    assert ((red < 128) == (green < 128)).all()
    assert (red < 128).double().mean().item() == pytest.approx(0.5, abs=0.04)


def test_coefficients_are_of_pairs_in_order():
    """Channel 3 of 4 follows channel 1 alone: the second of its three coefficients."""
    coefficients = [0.0] * 6
    coefficients[4] = 20.0  # after (1, 0), (2, 0), (2, 1) come (3, 0), (3, 1), (3, 2)
    params = torch.tensor([0.0, 0.5, -0.4, 0.2, 0.1, *[-7.0] * 4, *coefficients])
    images = LogisticMixture(4, mixtures=1)(params.view(1, 15, 1))
    drawn = images.sample(ops.make_rng(0), temperature=0.0).flatten()
    levels = 2 * drawn.double() / 255 - 1
    wanted = torch.tensor([0.5, -0.4, 0.2, 0.1 - 0.4], dtype=torch.float64)
    torch.testing.assert_close(levels, wanted, rtol=0, atol=1 / 255)


def test_more_than_three_channels_take_more_blocks_of_noise():
    params = torch.zeros(1, 11, 2000)
    params[:, 6:] = -1.0
    drawn = LogisticMixture(5, mixtures=1, coupled=False)(params).sample(ops.make_rng(0))[0]
    correlation = torch.corrcoef(drawn.double()) - torch.eye(5)
    assert correlation.abs().max() < 0.1
    assert len(drawn.unique(dim=0)) == 5
    assert OUTPUT_STREAM == 2**31 - 1


@pytest.mark.parametrize(("channels", "coupled"), [(2, True), (4, True), (3, False)])
def test_the_published_form_is_for_what_was_published(channels, coupled):
    with pytest.raises(UserError, match="form compat models 1 channel or 3 coupled ones"):
        LogisticMixture(channels, form="compat", coupled=coupled)
