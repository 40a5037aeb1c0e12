"""The ladder in one to three dimensions, its widths, its start and its gradients."""

import math

import pytest
import torch
from torch import Tensor

from hvae import ops
from hvae.errors import UserError
from hvae.models import HVAE, ModelConfig

# Data of every dimension, patched or not, with widths that grow and shrink between levels.
SHAPES = {
    "1-D": {"size": (32,), "encoder": "32x1,32d4,8x1,8d8,1x1", "decoder": "1x1,8m1,32m8"},
    "1-D patched": {"size": (32,), "patch": 2, "encoder": "16d4,4x1", "decoder": "4x2,16m4"},
    "2-D": {"size": (8, 8), "channels": 3},
    "2-D wide": {"size": (8, 24)},
    "2-D tall patched": {"size": (48, 16), "patch": 2, "channels": 3},
    "3-D": {"size": (8, 8, 16), "encoder": "8x1,8d4,2x1", "decoder": "2x1,8m2"},
    "3-D patched": {"size": (4, 8, 8), "patch": 2, "encoder": "2x1,2d2,1", "decoder": "1,2m1"},
    "truncated": {"widths": {4: 16, 1: 24}},
    "filled up": {"widths": {4: 6, 1: 4}},
    "up and down": {"widths": {4: 20, 1: 4}},
    "unbiased": {"no_bias_above": 1},
    "5 bits": {"likelihood": {"mixtures": 2, "bits": 5}},
}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
each_preset = pytest.mark.parametrize("preset", ["hvae", "vdvae"])


@each_shape
@each_preset
def test_the_elbo_adds_up_and_reaches_every_parameter(make_model, random_images, shape, preset):
    model = make_model(preset=preset, **shape)
    x = random_images(model, 3)
    elbo = model(x)
    assert elbo.nll.shape == elbo.elbo.shape == elbo.bits_per_dim.shape == (3,)
    assert elbo.kl.shape == (3, model.num_groups)
    assert (elbo.kl > 0).all()
    torch.testing.assert_close(elbo.elbo, -(elbo.nll + elbo.kl.sum(1)))
    torch.testing.assert_close(elbo.bits_per_dim, -elbo.elbo / (math.log(2) * x[0].numel()))

    elbo.elbo.sum().backward()
    unreached = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not unreached
    assert all(p.grad.isfinite().all() for p in model.parameters())


@each_shape
def test_samples_and_latents_have_the_shapes_of_the_layout(make_model, random_images, shape):
    model = make_model(**shape)
    images = model.sample(2)
    assert images.dtype == torch.uint8
    assert images.shape == (2, *model.shape)
    latents = model.encode(random_images(model, 2))
    assert [tuple(z.shape[1:]) for z in latents] == model.latent_shapes
    assert model.decode(latents).mean_image().shape == images.shape


@each_shape
def test_kernels_and_references_agree_on_the_ladder(make_model, random_images, shape):
    model = make_model(**shape)
    x = random_images(model, 2)
    fused = model(x)
    with ops.reference():
        torch.testing.assert_close(model(x), fused, rtol=1e-5, atol=1e-4)


@each_preset
def test_every_prior_starts_as_a_standard_normal(make_model, preset):
    model = make_model(preset=preset, initial=True)
    for block in model.decoder.blocks:
        state = torch.randn(2, 8, 4, 4)
        assert not block.prior(state).any()
    latents = model.decoder(500, ops.make_rng(0)).latents
    for z in latents:
        count = z.numel()
        assert abs(z.mean().item()) < 5 / count**0.5
        assert abs(z.var().item() - 1) < 5 * (2 / count) ** 0.5 + 3e-3  # softplus starts at 1.001


def test_residual_branches_start_smaller_in_deeper_ladders():
    def tail_std(depth: int) -> tuple[float, float]:
        config = ModelConfig(
            size=(4, 4), channels=1, encoder=f"4x{depth}", decoder=f"4x{depth}", width=64
        )
        model = HVAE(config)
        encoder, decoder = model.encoder.blocks[0], model.decoder.blocks[0]
        return encoder.c4.weight.std().item(), decoder.resnet.c4.weight.std().item()

    for shallow, deep in zip(tail_std(1), tail_std(16), strict=True):
        assert shallow / deep == pytest.approx(4, rel=0.1)


def test_depth_does_not_blow_up_the_first_bits_per_dim(random_images):
    config = ModelConfig(size=(4, 4), channels=1, encoder="4x30", decoder="4x30", width=16)
    model = HVAE(config)
    bits = model(random_images(model, 8)).bits_per_dim
    assert 6 < bits.mean().item() < 14


def test_posteriors_see_the_data_from_the_start(make_model, random_images):
    model = make_model(initial=True)
    assert (model(random_images(model, 2)).kl > 0).all()


def test_double_precision_agrees_with_single(make_model, random_images):
    model = make_model(channels=3, widths={4: 12})
    x = random_images(model, 2)
    eps = [torch.randn(2, *shape) for shape in model.latent_shapes]
    single = model(x, eps=eps)
    double = model.double()(x, eps=[e.double() for e in eps])
    assert double.elbo.dtype == torch.float64
    for a, b in zip(single, double, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-4)


def test_noise_is_keyed_by_group_and_sample(make_model, random_images):
    model = make_model()
    x = random_images(model, 3)
    rng = ops.make_rng(11, 40)
    eps = [
        ops.philox_normal(rng, group, (3, *shape))
        for group, shape in enumerate(model.latent_shapes)
    ]
    torch.testing.assert_close(model(x, rng=rng), model(x, eps=eps), rtol=1e-5, atol=1e-4)
    last = model(x[2:], rng=ops.make_rng(11, 42))
    torch.testing.assert_close(last.elbo, model(x, rng=rng).elbo[2:], rtol=1e-5, atol=1e-4)


def test_explicit_noise_replaces_the_generated(make_model, random_images):
    model = make_model()
    x = random_images(model, 2)
    eps = [torch.randn(2, *shape) for shape in model.latent_shapes]
    first, second = (model(x, eps=eps, rng=ops.make_rng(seed)) for seed in (0, 1))
    assert torch.equal(first.elbo, second.elbo)
    assert not torch.equal(first.elbo, model(x, eps=[-e for e in eps]).elbo)


def test_equal_calls_give_equal_results(make_model, random_images):
    model = make_model()
    x = random_images(model, 2)
    assert torch.equal(model(x).elbo, model(x).elbo)


def test_under_bf16_latents_kl_and_likelihood_stay_in_fp32(make_model, random_images, monkeypatch):
    model = make_model(channels=3)
    x = random_images(model, 4)
    exact = model(x)
    seen: list[Tensor] = []
    latent = ops.gaussian_latent

    def spy(q: Tensor, p: Tensor, state: Tensor, **options: object) -> ops.GaussianLatent:
        result = latent(q, p, state, **options)
        seen.extend((q, p, state, result.z, result.kl, result.y))
        return result

    monkeypatch.setattr(ops, "gaussian_latent", spy)
    convolutions: list[torch.dtype] = []
    for layer in (model.encoder.blocks[0].c2, model.decoder.blocks[0].resnet.c2):
        layer.register_forward_hook(lambda module, args, out: convolutions.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        elbo = model(x)
    assert {tensor.dtype for tensor in seen} == {torch.float32}
    assert convolutions == [torch.bfloat16] * 2
    assert {tensor.dtype for tensor in elbo} == {torch.float32}
    torch.testing.assert_close(elbo.elbo, exact.elbo, rtol=2e-2, atol=0)
    torch.testing.assert_close(elbo.kl, exact.kl, rtol=5e-2, atol=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": None}, "model.channels is not set; give it, or data.channels"),
        (
            {"widths": {8: 16}},
            "model.widths: the finest resolution 8 must have model.width 8, got 16",
        ),
        (
            {"channels": 4, "likelihood": {"form": "compat"}},
            "form compat models 1 channel or 3 coupled ones, as published; got 4 channels; "
            "use form exact",
        ),
        (
            {"size": None},
            "model.size is not set; give it, or data.size in a configuration file",
        ),
    ],
)
def test_models_that_cannot_be_built_say_why(make_model, changes, message):
    with pytest.raises(UserError) as caught:
        make_model(**changes)
    assert str(caught.value) == message


def test_data_must_be_uint8_of_the_models_shape(make_model):
    model = make_model()
    with pytest.raises(UserError) as caught:
        model(torch.zeros(2, 1, 8, 8))
    assert str(caught.value) == (
        "wanted uint8 data of shape (N, 1, 8, 8), got torch.float32 (2, 1, 8, 8)"
    )
    with pytest.raises(UserError) as caught:
        model(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert str(caught.value) == (
        "wanted uint8 data of shape (N, 1, 8, 8), got torch.uint8 (2, 3, 8, 8)"
    )


def test_conditions_are_refused(make_model, random_images):
    model = make_model()
    x, cond = random_images(model, 1), torch.zeros(1, 4)
    for call in (
        lambda: model(x, cond),
        lambda: model.sample(1, cond=cond),
        lambda: model.encode(x, cond),
        lambda: model.decode(model.encode(x), cond),
    ):
        with pytest.raises(UserError, match="this model takes no condition; leave cond out"):
            call()


def test_noise_for_another_number_of_groups_is_refused(make_model, random_images):
    model = make_model()
    eps = [torch.zeros(2, *shape) for shape in model.latent_shapes[:-1]]
    with pytest.raises(UserError, match="eps: wanted noise for 4 groups, got 3"):
        model(random_images(model, 2), eps=eps)
