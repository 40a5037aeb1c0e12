"""Encoding and decoding: the posterior pass taken apart and put together again."""

import pytest
import torch

from hvae import ops
from hvae.errors import UserError
from hvae.ops.philox import derive_seed


@pytest.mark.parametrize("preset", ["hvae", "vdvae"])
def test_decoding_what_was_encoded_is_the_posterior_pass(make_model, random_images, preset):
    model = make_model(preset=preset, channels=3, widths={4: 12, 1: 4})
    x = random_images(model, 3)
    decoded = model.decode(model.encode(x, seed=4))
    elbo = model(x, rng=ops.make_rng(derive_seed(4, "encode")))
    torch.testing.assert_close(-decoded.log_prob(x), elbo.nll)


def test_all_latents_leave_nothing_to_the_temperature(make_model, random_images):
    model = make_model()
    latents = model.encode(random_images(model, 2))
    cold, hot = (model.decode(latents, temperature=t, seed=int(t)).mean() for t in (0.0, 2.0))
    assert torch.equal(cold, hot)


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_missing_groups_come_from_the_prior_at_the_temperature(make_model, random_images, kept):
    model = make_model()
    latents = model.encode(random_images(model, 2))[:kept]
    means = [model.decode(latents, seed=seed).mean() for seed in (0, 1)]
    assert torch.equal(*means)
    warm = [model.decode(latents, temperature=1.0, seed=seed).mean() for seed in (0, 0, 1)]
    assert torch.equal(warm[0], warm[1])
    assert not torch.equal(warm[0], warm[2])
    assert not torch.equal(warm[0], means[0])


def test_modes_of_encoding(make_model, random_images):
    model = make_model()
    x = random_images(model, 2)
    mean = model.encode(x, mode="mean", seed=0)
    zeros = [torch.zeros(2, *shape) for shape in model.latent_shapes]
    expected = model.decoder(
        2,
        ops.make_rng(0),
        features=model.encoder(model.likelihood.network_input(x)),
        eps=zeros,
    ).latents
    for group in range(model.num_groups):
        assert torch.equal(mean[group], model.encode(x, mode="mean", seed=1)[group])
        assert torch.equal(mean[group], expected[group])
        assert not torch.equal(mean[group], model.encode(x, seed=0)[group])


def test_a_seed_decides_the_encoding(make_model, random_images):
    model = make_model()
    x = random_images(model, 2)
    first, again, other = (model.encode(x, seed=seed) for seed in (0, 0, 1))
    for group in range(model.num_groups):
        assert torch.equal(first[group], again[group])
        assert not torch.equal(first[group], other[group])


def test_the_mean_of_a_double_precision_model_can_be_encoded(make_model, random_images):
    model = make_model().double()
    latents = model.encode(random_images(model, 2), mode="mean")
    assert {z.dtype for z in latents} == {torch.float64}


def test_decoding_is_differentiable_in_the_latents(make_model, random_images):
    model = make_model()
    latents = [z.detach().requires_grad_() for z in model.encode(random_images(model, 2))]
    gradients = torch.autograd.grad(model.decode(latents).mean().sum(), latents)
    assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(
    ("latents", "options", "message"),
    [
        ([], {}, "decode wants at least one latent; use sample() to draw all of them"),
        ([torch.zeros(2, 2, 1, 1)] * 5, {}, "wanted at most 4 latents, got 5"),
        ([torch.zeros(2, 3, 1, 1)], {}, "latent 0: wanted (2, 2, 1, 1), got (2, 3, 1, 1)"),
        (
            [torch.zeros(2, 2, 1, 1), torch.zeros(1, 2, 4, 4)],
            {},
            "latent 1: wanted (2, 2, 4, 4), got (1, 2, 4, 4)",
        ),
        (
            [torch.zeros(2, 2, 1, 1)],
            {"temperature": (1.0, 0.5)},
            "temperature: wanted one number or 4, got 2",
        ),
    ],
)
def test_latents_that_do_not_fit_are_named(make_model, latents, options, message):
    with pytest.raises(UserError) as caught:
        make_model().decode(latents, **options)
    assert str(caught.value) == message


def test_an_unknown_mode_is_named(make_model, random_images):
    model = make_model()
    with pytest.raises(UserError) as caught:
        model.encode(random_images(model, 1), mode="mode")
    assert str(caught.value) == 'mode: wanted "sample" or "mean", got \'mode\''
