"""Options of the ladder: each does one thing, and nothing where it is left out."""

import math

import pytest
import torch
from torch import Tensor

from hvae import ops
from hvae.errors import UserError
from hvae.models import HVAE, ModelConfig
from hvae.models.latent import LatentForm
from hvae.models.vdvae import published_names
from tests.models.conftest import SMALL

OPTIONS = {
    "attention": {"attention": (8, 4), "heads": 2},
    "taper": {"taper": 1.5, "width": 16, "max_width": 32},
    "bounded std": {"std_max": 3.0},
    "bounded exponential std": {"std_max": 3.0, "preset": "vdvae"},
    "residual posterior": {"posterior": "residual"},
    "residual exponential posterior": {"posterior": "residual", "preset": "vdvae"},
    "residual and bounded": {"posterior": "residual", "std_max": 3.0},
    "learned top prior": {"top_prior": "learned"},
    "zero tails": {"init": "zero_tail"},
    "lecun": {"init": "lecun"},
}
DIMENSIONS = {
    1: {"size": (32,), "encoder": "32x1,32d4,8x1,8d2,4x1", "decoder": "4x1,8m4,32m8"},
    2: {},
    3: {"size": (8, 8, 16), "encoder": "8x1,8d2,4x1", "decoder": "4x1,8m4"},
}
each_option = pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)


def count(model: HVAE) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def build(**changes: object) -> HVAE:
    torch.manual_seed(4)
    return HVAE(ModelConfig.model_validate({**SMALL, **changes})).eval()


@each_option
@pytest.mark.parametrize("ndim", DIMENSIONS)
def test_options_work_in_every_dimension(make_model, random_images, option, ndim):
    model = make_model(**{**DIMENSIONS[ndim], **option})
    x = random_images(model, 3)
    elbo = model(x)
    assert elbo.elbo.isfinite().all()
    assert (elbo.kl > 0).all()
    elbo.elbo.sum().backward()
    unreached = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert unreached == []
    assert model.sample(2).shape == (2, *model.shape)
    with ops.reference():
        torch.testing.assert_close(model(x), elbo, rtol=1e-5, atol=1e-4)


@each_option
def test_options_keep_the_identity_of_posterior_and_decoder(make_model, random_images, option):
    model = make_model(**option)
    x = random_images(model, 2)
    rng = ops.make_rng(ops.philox.derive_seed(4, "encode"))
    nll = -model.decode(model.encode(x, seed=4)).log_prob(x)
    torch.testing.assert_close(nll, model(x, rng=rng).nll)
    whole = model.sample(20)
    assert torch.equal(model.sample(3, first_index=15), whole[15:18])


@each_option
def test_importance_weights_have_the_elbo_as_their_mean(make_model, random_images, option):
    model = make_model(**option).double()
    x = random_images(model, 1).expand(1000, -1, -1, -1)
    with torch.no_grad():
        difference = model.log_weights(x, rng=ops.make_rng(0)) - model(x, rng=ops.make_rng(0)).elbo
    error = difference.mean() / (difference.std() / math.sqrt(len(x)))
    assert abs(error.item()) < 4


@each_option
def test_options_go_with_a_condition(make_model, random_images, option):
    condition = {"kind": "class", "classes": ("a", "b"), "width": 4}
    model = make_model(condition=condition, **option)
    x = random_images(model, 2)
    assert not torch.equal(model(x, torch.tensor([0, 0])).kl, model(x, torch.tensor([1, 1])).kl)
    images = model.sample(2, cond="b", guidance=1.5)
    assert images.shape == x.shape
    assert torch.equal(model.sample(1, cond="b", guidance=1.5, first_index=1), images[1:])


@each_option
def test_options_survive_json(option):
    config = ModelConfig.model_validate({**SMALL, **option})
    assert ModelConfig.model_validate(config.model_dump(mode="json")) == config


# Attention


def test_attention_starts_as_nothing(random_images):
    plain, attentive = build(), build(attention=[8, 4], heads=2)
    missing, unexpected = attentive.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert all(".attention." in name for name in missing)
    x = random_images(plain, 2)
    assert torch.equal(attentive(x).elbo, plain(x).elbo)


def test_attention_adds_its_weights_at_its_resolutions_alone():
    plain, attentive = build(), build(attention=[4], heads=2)
    width = 8
    one = width * 3 * width + 3 * width + width * width + width + 2
    # At 4: the encoder's plain block and its pooling one, and a group.
    encoder = sum(block.resolution == 4 for block in attentive.encoder.layout)
    decoder = sum(block.resolution == 4 for block in attentive.decoder.layout.decoder)
    assert count(attentive) - count(plain) == (encoder + decoder) * one
    assert not any(name.startswith("decoder.blocks.0.att") for name in attentive.state_dict())


def test_a_level_that_is_not_there_is_named():
    with pytest.raises(UserError) as caught:
        build(attention=[2])
    assert str(caught.value) == (
        "model.attention: no level has resolution 2; the levels are 1, 4, 8"
    )


def test_heads_must_divide_the_channels():
    with pytest.raises(UserError) as caught:
        build(attention=[4], heads=3)
    assert str(caught.value) == (
        "model.heads: 3 heads do not divide the 8 channels at resolution 4"
    )


# Widths


def test_taper_grows_the_channels_with_every_halving():
    config = ModelConfig.model_validate(
        {**SMALL, "width": 16, "taper": 2.0, "max_width": 96, "widths": {4: 20}}
    )
    assert [config.width_at(r) for r in (8, 4, 2, 1)] == [16, 20, 64, 96]
    assert [config.model_copy(update={"taper": 1.0}).width_at(r) for r in (8, 2)] == [16, 16]


def test_taper_counts_from_the_level_below_the_stem():
    config = ModelConfig.model_validate({**SMALL, "size": (32, 16), "patch": 2, "taper": 1.5})
    assert [config.width_at(r) for r in (8, 4, 2, 1)] == [8, 16, 16, 24]


def test_a_tapered_model_is_one_with_those_widths(random_images):
    tapered, spelt = build(taper=1.5), build(widths={4: 16, 1: 24})
    x = random_images(tapered, 2)
    assert torch.equal(tapered(x).elbo, spelt(x).elbo)


# Standard deviations


def stds(form: LatentForm, buffer: Tensor) -> Tensor:
    raw = buffer[:, form.z_channels : 2 * form.z_channels]
    return raw.exp() if form.std == "log" else form.floor + torch.log2(1 + 2**raw)


@pytest.mark.parametrize("preset", ["hvae", "vdvae"])
@pytest.mark.parametrize("posterior", ["free", "residual"])
def test_bounded_stds_are_those_of_old_until_the_bound_is_near(preset, posterior):
    settings = {**SMALL, "preset": preset, "posterior": posterior, "z_channels": 1}
    free = LatentForm.of(ModelConfig.model_validate(settings))
    form = LatentForm.of(ModelConfig.model_validate({**settings, "std_max": 10.0}))
    raw = torch.linspace(-6, 30, 200, dtype=torch.float64)
    p = torch.stack([torch.zeros(200, dtype=torch.float64), raw], 1)[..., None]
    p.requires_grad_()
    bounded, old = stds(form, form.prior(p)), stds(free, free.prior(p))
    assert (bounded < 10 + 1e-9).all()
    assert (bounded.diff(dim=0) >= 0).all()
    near_one = (old < 1.2).squeeze()
    torch.testing.assert_close(bounded[near_one], old[near_one], rtol=1e-2, atol=0)
    bounded.sum().backward()
    assert p.grad.isfinite().all()
    q = torch.randn(200, 2, 1, dtype=torch.float64) * 20
    assert (stds(form, form.posterior(q, form.prior(p))) < 10 + 1e-9).all()


def test_a_bound_leaves_the_start_as_it_is(random_images):
    plain, bounded = build(), build(std_max=20.0)
    x = random_images(plain, 2)
    torch.testing.assert_close(bounded(x).elbo, plain(x).elbo, rtol=1e-4, atol=0)


def test_options_that_are_off_hand_the_buffers_on():
    form = LatentForm.of(ModelConfig.model_validate(SMALL))
    p, q = torch.randn(2, 12, 3, 3), torch.randn(2, 4, 3, 3)
    assert form.prior(p) is p
    assert form.posterior(q, p) is q


# The residual posterior


@pytest.mark.parametrize("preset", ["hvae", "vdvae"])
def test_a_residual_posterior_is_measured_from_the_prior(preset):
    config = ModelConfig.model_validate({**SMALL, "preset": preset, "posterior": "residual"})
    form = LatentForm.of(config)
    p, q = torch.randn(3, 12, 2, 2).double(), torch.randn(3, 4, 2, 2).double()
    plain = LatentForm.of(config.model_copy(update={"posterior": "free"}))
    prior = form.prior(p)
    posterior = form.posterior(q, prior)
    torch.testing.assert_close(posterior[:, :2], p[:, :2] + q[:, :2])
    torch.testing.assert_close(stds(form, posterior), stds(plain, p) * stds(plain, q))
    assert torch.equal(prior[:, 4:], p[:, 4:])


def test_a_residual_posterior_without_residual_has_no_kl(random_images):
    model = build(posterior="residual", preset="vdvae")
    with torch.no_grad():
        for block in model.decoder.blocks:
            block.prior.c4.weight.normal_()  # any prior
            block.posterior.scale_tail(0.0)
    assert (model(random_images(model, 2)).kl.abs() < 1e-4).all()


# The top prior


def test_a_learned_top_prior_is_parameters_in_place_of_a_network(random_images):
    plain, learned = build(), build(top_prior="learned")
    network = sum(p.numel() for p in plain.decoder.blocks[0].prior.parameters())
    assert count(plain) - count(learned) == network - (2 * 2 + 8)
    with torch.no_grad():
        learned.decoder.blocks[0].prior.map[:, :2] = 3.0
    z = learned.decoder(500, ops.make_rng(0)).latents[0]
    assert z.mean().item() == pytest.approx(3.0, abs=0.2)
    assert z.std().item() == pytest.approx(1.0, abs=0.15)


def test_a_condition_moves_a_learned_top_prior(make_model):
    condition = {"kind": "class", "classes": ("a", "b"), "width": 4}
    model = make_model(top_prior="learned", condition=condition)
    a, b = (
        model.decoder(4, ops.make_rng(0), cond=model.condition(torch.full((4,), c), 4)).latents[0]
        for c in (0, 1)
    )
    assert not torch.equal(a, b)


# Initial weights


def test_zero_tails_leave_only_the_latents_and_the_stem_at_the_start():
    model = build(init="zero_tail")
    state = torch.randn(2, 8, 8, 8)
    assert not any(block(state).any() for block in model.encoder.blocks)
    for block in model.decoder.blocks:
        assert not block.resnet(state).any()
        assert block.z_proj.weight.any()
        assert block.posterior.c4.weight.any()


def test_lecun_weights_keep_the_variance_of_what_passes():
    plain, lecun = build(width=64), build(width=64, init="lecun")
    inputs = torch.randn(400, 64, 1, 1)
    variances = [m.encoder.blocks[-1].c1(inputs).var().item() for m in (plain, lecun)]
    assert variances == pytest.approx([1 / 3, 1.0], rel=0.2)


# All of them and what they must leave alone


def test_what_the_published_models_do_not_have_cannot_be_exported():
    published = {**SMALL, "preset": "vdvae"}
    for option, problem in [
        ({"attention": (4,)}, "model.attention is (4,), not ()"),
        ({"std_max": 3.0}, "model.std_max is 3.0, not None"),
        ({"posterior": "residual"}, "model.posterior is residual, not free"),
        ({"top_prior": "learned"}, "model.top_prior is learned, not state"),
        (
            {"condition": {"kind": "vector", "shape": (2,)}},
            "model.condition.kind is vector, not none",
        ),
    ]:
        model = HVAE(ModelConfig.model_validate({**published, **option}))
        with pytest.raises(UserError) as caught:
            published_names(model)
        assert problem in str(caught.value)


def test_a_bound_below_the_floor_is_refused():
    with pytest.raises(ValueError, match=r"std_max must exceed std_floor, got 0\.001 and 0\.01"):
        ModelConfig.model_validate({**SMALL, "std_max": 0.001, "std_floor": 0.01})
