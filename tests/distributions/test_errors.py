"""Wrong use is one line that says what was wanted."""

import pytest
import torch

from hvae import ops
from hvae.distributions import LikelihoodConfig, LogisticMixture, make_likelihood
from hvae.distributions.pixels import PixelLikelihood
from hvae.errors import UserError

KINDS = [
    "bernoulli",
    "categorical",
    "discretized_gaussian",
    "discretized_logistic",
    "gaussian",
    "logistic_mixture",
]


def family(kind: str, channels: int = 2) -> PixelLikelihood:
    return make_likelihood(LikelihoodConfig(kind=kind), channels)


@pytest.mark.parametrize("kind", KINDS)
def test_data_without_channels_is_refused(kind):
    with pytest.raises(UserError) as caught:
        family(kind, 0)
    assert str(caught.value) == f"a {kind} models at least 1 channel, the data has 0"


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("bits", [0, 9])
def test_other_bit_depths_are_refused(kind, bits):
    with pytest.raises(UserError, match=f"a {kind} models 1 to 8 bits, got {bits}"):
        type(family(kind))(1, bits=bits)


@pytest.mark.parametrize("kind", KINDS)
def test_head_outputs_that_do_not_fit_are_refused(kind):
    likelihood = family(kind)
    wanted = likelihood.num_parameters
    for shape in [(1, wanted + 1, 4), (1, wanted)]:
        with pytest.raises(UserError) as caught:
            likelihood(torch.zeros(shape))
        assert str(caught.value) == (
            f"a {kind} of 2 channels wants head outputs (N, {wanted}, *S), got {shape}"
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(3, 2, 4, dtype=torch.float32),
        torch.zeros(3, 1, 4, dtype=torch.uint8),
        torch.zeros(2, 2, 4, dtype=torch.uint8),
        torch.zeros(3, 2, 5, dtype=torch.uint8),
    ],
    ids=["floats", "channels", "batch", "space"],
)
def test_images_that_do_not_fit_are_refused(kind, x):
    likelihood = family(kind)
    with pytest.raises(UserError) as caught:
        likelihood(torch.zeros(3, likelihood.num_parameters, 4)).log_prob(x)
    assert str(caught.value) == f"wanted uint8 images (3, 2, 4), got {x.dtype} {tuple(x.shape)}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [-0.1, float("nan"), float("inf")])
def test_temperatures_below_zero_are_refused(kind, temperature):
    likelihood = family(kind)
    images = likelihood(torch.zeros(1, likelihood.num_parameters, 4))
    with pytest.raises(UserError, match="temperature must be finite and at least 0"):
        images.sample(ops.make_rng(0), temperature=temperature)


def test_a_mixture_without_components_is_refused():
    with pytest.raises(UserError, match="at least 1 component, got 0"):
        LogisticMixture(1, mixtures=0)
