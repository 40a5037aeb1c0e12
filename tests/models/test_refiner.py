"""The refiner: nothing at first, bounded later, and never a part of the model."""

import hashlib

import pytest
import torch

from hvae.errors import UserError
from hvae.inference import reconstruct
from hvae.models import HVAE, ModelConfig
from hvae.models.refiner import Refiner, RefinerConfig
from hvae.ops import make_rng

SIZES = {1: (16,), 2: (8, 12), 3: (4, 4, 8)}
LAYOUTS = {
    1: ("16x1,16d2,8x1,8d2,4x1", "4x2,8m4,16m8"),
    2: ("8x1,8d2,4x1", "4x2,8m4"),
    3: ("4x1,4d2,2x1", "2x2,4m2"),
}


def make(ndim=2, channels=1, patch=1, **settings):
    torch.manual_seed(0)
    encoder, decoder = LAYOUTS[ndim]
    size = tuple(side * patch for side in SIZES[ndim])
    config = ModelConfig(
        size=size, channels=channels, encoder=encoder, decoder=decoder, patch=patch, width=8,
        z_channels=2, **settings,
    )  # fmt: skip
    model = HVAE(config).eval()
    with torch.no_grad():
        for block in model.decoder.blocks:  # a prior that says something
            block.prior.c4.weight.normal_(std=0.3)
    return model


def shaken(refiner):
    """The refiner with last layers that are not zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for injector in refiner.injectors.values():
            injector.out.weight.normal_()
        if refiner.output is not None:
            refiner.output.out.weight.normal_()
    return refiner


def digest(model):
    state = model.state_dict()
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in state)).hexdigest()


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(
    "parts", [{"output": True}, {"output": False}, {"output": True, "injectors": False}]
)
def test_at_first_images_are_the_unrefined_ones_exactly(ndim, parts):
    model = make(ndim)
    plain = model.sample(3, output="mean")
    latents = model.encode(plain)
    rebuilt = model.decode(latents).mean_image()
    model.refine_with(Refiner(RefinerConfig(**parts), model.config).eval())
    assert torch.equal(model.sample(3), plain)
    assert torch.equal(model.decode_image(latents), rebuilt)


@pytest.mark.parametrize("patch", [1, 2])
def test_both_parts_change_samples_once_they_have_learned(patch):
    model = make(patch=patch)
    plain = model.sample(3, output="mean")
    for parts in ({"output": False}, {"output": True, "injectors": False}):
        refiner = shaken(Refiner(RefinerConfig(**parts), model.config).eval())
        model.refine_with(refiner)
        assert not torch.equal(model.sample(3), plain)
        assert torch.equal(model.sample(3, refined=False, output="mean"), plain)


def test_injectors_stand_where_they_are_asked_for():
    model = make()
    refiner = Refiner(RefinerConfig(finest=4), model.config)
    groups = range(model.num_groups)
    assert [refiner.injector(group) is not None for group in groups] == [True, True, False]
    assert all(Refiner(RefinerConfig(), model.config).injector(group) for group in groups)


def test_reconstructions_never_meet_the_injectors():
    model = make()
    images = model.sample(3)
    latents = model.encode(images)
    plain = model.decode_image(latents)
    model.refine_with(shaken(Refiner(RefinerConfig(output=False), model.config).eval()))
    assert torch.equal(model.decode_image(latents), plain)
    assert torch.equal(reconstruct(model, images), plain)
    # Groups that are not given come from the prior, and through them.
    assert not torch.equal(model.decode_image(latents[:1]), model.decode(latents[:1]).mean_image())


def test_corrections_are_bounded():
    model = make()
    refiner = shaken(
        Refiner(RefinerConfig(output=True, injectors=False, bound=0.25), model.config).eval()
    )
    with torch.no_grad():
        refiner.output.out.weight.mul_(1e4)
    ladder = model.decoder(2, make_rng(0), refiner=refiner)
    mean = torch.full((2, 1, 8, 12), 127.5)
    refined = refiner.image(mean, ladder.states)
    assert (refined - mean).abs().max().item() == pytest.approx(0.25 * 127.5)
    assert 0 <= refined.min() <= refined.max() <= 255


def test_the_model_is_not_touched(tmp_path):
    model = make()
    x = torch.randint(256, (4, 1, 8, 12), dtype=torch.uint8)
    before, elbo = digest(model), model(x, rng=make_rng(0)).elbo
    names = set(model.state_dict())
    model.refine_with(shaken(Refiner(RefinerConfig(output=True), model.config)))
    assert digest(model) == before
    assert set(model.state_dict()) == names
    assert torch.equal(model(x, rng=make_rng(0)).elbo, elbo)


def test_gradients_flow_through_the_frozen_blocks_to_every_injector():
    model = make()
    refiner = shaken(Refiner(RefinerConfig(output=True), model.config))
    with torch.no_grad():
        for start in model.decoder.bias_maps.values():  # the first injector reads them
            start.normal_()
    model.requires_grad_(False)
    ladder = model.decoder(2, make_rng(0), refiner=refiner)
    model.image(ladder, refiner).square().mean().backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, parameter in refiner.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_clipping_passes_gradients_on():
    model = make()
    refiner = Refiner(RefinerConfig(output=False), model.config)
    mean = torch.tensor([[[[300.0, -5.0, 10.0]]]], requires_grad=True)
    image = refiner.image(mean, {})
    image.sum().backward()
    assert image.flatten().tolist() == [255.0, 0.0, 10.0]
    assert mean.grad.flatten().tolist() == [1.0, 1.0, 1.0]


def test_samples_are_the_same_by_number_when_refined():
    model = make()
    model.refine_with(shaken(Refiner(RefinerConfig(output=True), model.config).eval()))
    assert torch.equal(model.sample(20, seed=2)[17:], model.sample(3, seed=2, first_index=17))


def test_guided_samples_are_refined_too():
    model = make(condition={"kind": "class", "classes": ("a", "b"), "width": 4})
    model.refine_with(shaken(Refiner(RefinerConfig(output=True), model.config).eval()))
    assert not torch.equal(
        model.sample(4, cond="a", guidance=1.5),
        model.sample(4, cond="a", guidance=1.5, refined=False),
    )


def test_refined_without_a_refiner_is_refused():
    with pytest.raises(UserError, match="hvae refine"):
        make().sample(1, refined=True)
    with pytest.raises(UserError, match="nothing"):
        Refiner(RefinerConfig(injectors=False, output=False), make().config)
