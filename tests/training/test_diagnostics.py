"""What the log says of latents, against the same figures by other means."""

import math

import pytest
import torch

from hvae.data import DataConfig, open_source
from hvae.metrics.likelihood import evaluate_likelihood
from hvae.models import HVAE, ModelConfig
from hvae.training.diagnostics import (
    LatentStatistics,
    _pairwise_log_density,
    collapse_warning,
    collapsed_groups,
)

MODEL = ModelConfig(
    size=(8, 8), channels=1, encoder="8x1,8d2,4x1", decoder="4x1,8m4", width=8, z_channels=2
)
SOURCE = DataConfig(source="shapes", size=8, channels=1)


def spread_model(scale: float = 200.0) -> HVAE:
    """A model whose posteriors differ between images, as they do after some training."""
    model = HVAE(MODEL).eval()
    with torch.no_grad():
        for block in model.decoder.blocks:
            block.posterior.c4.weight.mul_(scale)
    return model


def statistics_of(model: HVAE, images: int, batch: int, **options: int) -> dict:
    statistics = LatentStatistics(model)
    with statistics.watching():
        source = open_source(SOURCE, "test")
        evaluate_likelihood(model, source, images=images, batch=batch, **options)
    return statistics.row()


def collapse(model: HVAE, group: int) -> None:
    """Makes the posterior of a group its prior: both standard normals."""
    block = model.decoder.blocks[group]
    with torch.no_grad():
        for head in (block.posterior, block.prior):
            head.c4.weight.zero_()
            head.c4.bias.zero_()


def test_groups_have_as_many_units_as_their_latents_numbers():
    row = statistics_of(spread_model(), 8, 4)
    assert row["latent_units"] == [2 * 4 * 4, 2 * 8 * 8]
    assert row["mutual_information_limit"] == pytest.approx(math.log(4))
    for active in (row["active_units"], row["active_units_given_above"]):
        assert all(0 < a <= units for a, units in zip(active, row["latent_units"], strict=True))


def test_active_units_of_the_top_group_are_those_of_the_encoded_means():
    model, count = spread_model(), 40
    source = open_source(SOURCE, "test")
    x = torch.stack([source[i] for i in range(count)])
    with torch.no_grad():
        means = model.encode(x, mode="mean")[0]
    expected = int((means.double().var(0) > 0.01).sum())
    row = statistics_of(model, count, 16)
    assert row["active_units"][0] == expected
    assert expected > 0


def test_a_collapsed_group_has_no_active_units_and_no_information():
    model = spread_model()
    collapse(model, 1)
    row = statistics_of(model, 32, 16)
    assert row["active_units_given_above"][1] == 0
    assert row["mutual_information"][1] == pytest.approx(0, abs=1e-9)
    assert row["active_units_given_above"][0] > 0
    assert row["mutual_information"][0] > 0.01


def test_information_is_at_most_its_limit_and_at_most_the_kl():
    model = spread_model()
    source = open_source(SOURCE, "test")
    kl = evaluate_likelihood(model, source, images=64, batch=32).kl_per_group
    row = statistics_of(model, 64, 32)
    for information, nats in zip(row["mutual_information"], kl, strict=True):
        assert 0 < information <= math.log(32) + 1e-9
        assert information < nats


def test_batches_change_nothing_but_the_information():
    first, second = (statistics_of(spread_model_with_seed(), 30, batch) for batch in (7, 30))
    for name in ("active_units", "active_units_given_above", "latent_units"):
        assert first[name] == second[name]
    assert first["prior_std_at_floor"] == pytest.approx(second["prior_std_at_floor"])


def spread_model_with_seed() -> HVAE:
    torch.manual_seed(3)
    return spread_model()


def test_importance_samples_are_not_counted():
    torch.manual_seed(1)
    model = spread_model()
    assert statistics_of(model, 6, 4) == statistics_of(model, 6, 4, importance=3)


def test_stds_at_the_floor_and_far_above_are_counted():
    model = spread_model()
    block = model.decoder.blocks[1]
    with torch.no_grad():
        block.prior.c4.bias[2:4] = -30.0
        block.prior.c4.weight.zero_()
        block.posterior.c4.weight.zero_()
        block.posterior.c4.bias[2] = 9.0
    row = statistics_of(model, 4, 4)
    assert row["prior_std_at_floor"] == [0.0, 1.0]
    assert row["posterior_std_at_floor"] == [0.0, 0.0]
    assert row["std_large"] == [0.0, 0.25]


def test_one_image_has_no_active_units():
    row = statistics_of(spread_model(), 1, 1)
    assert row["active_units"] == [0, 0]
    assert row["mutual_information"] == [0.0, 0.0]


def test_watching_leaves_no_hook_and_the_score_as_it_is():
    model = spread_model()
    source = open_source(SOURCE, "test")
    plain = evaluate_likelihood(model, source, images=8, batch=4)
    statistics = LatentStatistics(model)
    with statistics.watching():
        assert evaluate_likelihood(model, source, images=8, batch=4) == plain
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_pairwise_densities_are_those_of_normals():
    z, mean = torch.randn(2, 5, 70_000).unbind(0)
    std = torch.rand(5, 70_000) + 1e-3
    normal = torch.distributions.Normal(mean.double()[None], std.double()[None])
    expected = normal.log_prob(z.double()[:, None]).sum(2) + 70_000 * math.log(2 * math.pi) / 2
    torch.testing.assert_close(_pairwise_log_density(z, mean, std), expected, rtol=1e-9, atol=1e-3)


@pytest.mark.parametrize(
    ("kl", "groups", "warning"),
    [
        ((1.0, 0.01), [], None),
        ((1.0, 0.009, 0.02), [2],
         "warning: group 2 of 3 carries nothing (test KL under 0.01 nats per image)"),
        ((0.0, 1.0, math.nan), [1, 3],
         "warning: groups 1, 3 of 3 carry nothing (test KL under 0.01 nats per image)"),
    ],
)  # fmt: skip
def test_collapsed_groups_are_named(kl, groups, warning):
    assert collapsed_groups(kl) == groups
    assert collapse_warning(kl) == warning
