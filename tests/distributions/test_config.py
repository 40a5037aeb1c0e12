"""The section: which keys a kind reads, what it says of others, and that it survives a file."""

import pytest
from pydantic import ValidationError

from hvae.distributions import (
    Bernoulli,
    Categorical,
    DiscretizedGaussian,
    DiscretizedLogistic,
    Gaussian,
    LikelihoodConfig,
    LogisticMixture,
    make_likelihood,
)

FAMILIES = {
    "bernoulli": (Bernoulli, 3),
    "categorical": (Categorical, 3 * 256),
    "discretized_gaussian": (DiscretizedGaussian, 6),
    "discretized_logistic": (DiscretizedLogistic, 6),
    "gaussian": (Gaussian, 6),
    "logistic_mixture": (LogisticMixture, 100),
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_kind_is_found_by_its_name(kind):
    family, parameters = FAMILIES[kind]
    config = LikelihoodConfig(kind=kind, input_mean=10.0, input_std=2.0)
    likelihood = make_likelihood(config, 3)
    assert type(likelihood) is family
    assert likelihood.num_parameters == parameters
    assert (likelihood.input_mean, likelihood.input_std) == (10.0, 2.0)


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        ("bernoulli", {"bits": 8}, "bits does not apply to bernoulli"),
        ("bernoulli", {"bits": 1, "mixtures": 2}, "bits, mixtures do not apply to bernoulli"),
        ("gaussian", {"mixtures": 10}, "mixtures does not apply to gaussian"),
        ("categorical", {"coupled": True}, "coupled does not apply to categorical"),
        ("discretized_logistic", {"form": "exact"}, "form does not apply to discretized_logistic"),
    ],
)
def test_keys_of_other_kinds_are_errors_that_name_them(kind, keys, message):
    with pytest.raises(ValidationError) as caught:
        LikelihoodConfig(kind=kind, **keys)
    assert message in str(caught.value)
    assert "leave out, or set to null" in str(caught.value)


def test_null_takes_back_a_key():
    values = {"kind": "bernoulli", "mixtures": None, "bits": None}
    assert LikelihoodConfig.model_validate(values) == LikelihoodConfig(kind="bernoulli")
    assert LikelihoodConfig.model_validate({"mixtures": None}).mixtures == 10


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("mode", ["python", "json"])
def test_what_is_written_is_what_is_read(kind, mode):
    config = LikelihoodConfig(kind=kind, input_mean=3.0)
    values = config.model_dump(mode=mode)
    assert LikelihoodConfig.model_validate(values) == config
    assert ("bits" in values) == (kind != "bernoulli")
    assert ("mixtures" in values) == ("coupled" in values) == (kind == "logistic_mixture")


def test_the_default_is_the_coupled_mixture():
    likelihood = make_likelihood(LikelihoodConfig(), 3)
    assert isinstance(likelihood, LogisticMixture)
    assert (likelihood.mixtures, likelihood.bits, likelihood.coupled) == (10, 8, True)


@pytest.mark.parametrize(
    ("settings", "measures"),
    [
        ({}, "bits/dim of the uint8 values"),
        ({"bits": 5}, "bits/dim of the upper 5 bits"),
        (
            {"form": "compat", "bits": 5},
            "bits/dim of the upper 5 bits by the published VDVAE's formula, "
            "which is no likelihood at fewer than 8",
        ),
        ({"form": "compat"}, "bits/dim of the uint8 values by the published VDVAE's formula"),
        (
            {"kind": "gaussian", "bits": 4},
            "bits/dim of a density under uniform dequantisation, an upper bound on "
            "bits/dim of the upper 4 bits",
        ),
        (
            {"kind": "bernoulli"},
            "bits/dim of binary values, a grey one counted as the probability of a 1",
        ),
        ({"kind": "categorical"}, "bits/dim of the uint8 values"),
    ],
)
def test_a_likelihood_says_what_its_number_is(settings, measures):
    assert make_likelihood(LikelihoodConfig(**settings), 3).measures == measures
