"""Conditions: how they are given, where they act, when they are dropped, what guidance does."""

import math

import pytest
import torch
from torch import Tensor

from hvae import ops
from hvae.errors import UserError
from hvae.losses import objective
from hvae.models import HVAE, ModelConfig
from hvae.models.condition import low_resolution, masked, random_mask, slug
from hvae.models.sampling import CHUNK
from tests.models.conftest import SMALL

CLOTHES = ("T-shirt/top", "trouser", "ankle boot")
KINDS = {
    "class": {"kind": "class", "classes": CLOTHES},
    "vector": {"kind": "vector", "shape": (5,)},
    "image": {"kind": "image", "shape": (2, 8, 8)},
    "small image": {"kind": "image", "shape": (1, 4, 4)},
    "smallest image": {"kind": "image", "shape": (1, 1, 1)},
}
# Data of one and three dimensions, and stems that fold.
SHAPES = {
    "1-D": (
        {"size": (32,), "encoder": "32x1,32d4,8x1,8d8,1x1", "decoder": "1x1,8m1,32m8"},
        {"kind": "image", "shape": (1, 16)},
    ),
    "2-D patched": ({"size": (24, 8), "patch": 2, "encoder": "4x1", "decoder": "4x1"}, None),
    "2-D patched, image": (
        {"size": (24, 8), "patch": 2, "encoder": "4x1", "decoder": "4x1"},
        {"kind": "image", "shape": (1, 24, 8)},
    ),
    "3-D": (
        {"size": (8, 8, 16), "encoder": "8x1,8d4,2x1", "decoder": "2x1,8m2"},
        {"kind": "image", "shape": (1, 4, 4, 8)},
    ),
    "3-D class": ({"size": (4, 4, 4), "encoder": "4x1,4d4,1", "decoder": "1,4m1"}, None),
}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
kind_and_dropout = {"width": 6, "dropout": 0.4}


@pytest.fixture
def make(make_model):
    """Builds a small conditional model."""

    def build(kind: dict, *, initial: bool = False, **changes: object) -> HVAE:
        condition = {**kind_and_dropout, **kind}
        return make_model(initial=initial, condition=condition, **changes)

    return build


def conditions(model: HVAE, n: int) -> Tensor:
    condition = model.config.condition
    if condition.kind == "class":
        return torch.arange(n) % len(condition.classes)
    if condition.kind == "vector":
        return torch.randn(n, *condition.shape)
    return torch.randint(256, (n, *condition.shape), dtype=torch.uint8)


@each_kind
def test_a_condition_changes_nothing_at_the_start(kind, random_images):
    torch.manual_seed(3)
    plain = HVAE(ModelConfig.model_validate(SMALL))
    torch.manual_seed(3)
    condition = {**kind_and_dropout, **kind}
    model = HVAE(ModelConfig.model_validate({**SMALL, "condition": condition}))
    own = plain.state_dict()
    assert all(torch.equal(own[name], model.state_dict()[name]) for name in own)
    x = random_images(model, 3)
    wanted = plain(x)
    for cond in (None, conditions(model, 3)):
        for found, expected in zip(model(x, cond), wanted, strict=True):
            assert torch.equal(found, expected)


@each_kind
def test_a_condition_reaches_every_group_and_every_parameter(make, random_images, kind):
    model = make(kind).train()
    x, cond = random_images(model, 8), conditions(model, 8)
    model.eval()
    assert (model(x, cond).kl != model(x).kl).all()
    model.train()
    model(x, cond, rng=ops.make_rng(2)).elbo.sum().backward()
    unreached = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert unreached == []


@each_kind
def test_every_verb_takes_a_condition(make, random_images, kind):
    model = make(kind)
    x, cond = random_images(model, 3), conditions(model, 3)
    latents = model.encode(x, cond)
    decoded = model.decode(latents, cond)
    rng = ops.make_rng(ops.philox.derive_seed(0, "encode"))
    torch.testing.assert_close(-decoded.log_prob(x), model(x, cond, rng=rng).nll)
    assert not torch.equal(model.encode(x)[0], latents[0])
    assert not torch.equal(model.decode(latents).mean(), decoded.mean())
    images = model.sample(3, cond=cond)
    assert images.shape == x.shape
    assert not torch.equal(images, model.sample(3))


@pytest.mark.parametrize(("shape", "kind"), SHAPES.values(), ids=SHAPES)
def test_conditions_of_any_dimension(make, random_images, shape, kind):
    model = make(kind or KINDS["class"], **shape)
    x, cond = random_images(model, 2), conditions(model, 2)
    elbo = model(x, cond)
    assert elbo.elbo.isfinite().all()
    assert not torch.equal(elbo.elbo, model(x).elbo)
    assert model.sample(2, cond=cond, guidance=1.5).shape == x.shape


def test_an_image_acts_where_it_is(make, random_images):
    kind = {"kind": "image", "shape": (2, 16, 16)}
    model = make(kind, size=(16, 16), encoder="16x1", decoder="16x1")
    cond = conditions(model, 1)
    other = cond.clone()
    other[:, :, 0, 0] = 255 - other[:, :, 0, 0]
    z = torch.zeros(1, 2, 16, 16)
    with torch.no_grad():
        params = [
            model.decoder(1, ops.make_rng(0), latents=[z], cond=model.condition(c, 1)).state
            for c in (cond, other)
        ]
    change = (params[0] - params[1]).abs().amax(1)[0]
    # Seven convolutions of 3x3: one and two in the pyramid, two in the prior, two in the residual.
    assert change[0, 0] > 0
    assert not change[8:, 8:].any()


# Dropping conditions


def dropped(model: HVAE, cond: Tensor, first: int, seed: int = 5) -> Tensor:
    """Which rows get the null, by comparing the embedded maps."""
    maps = model.condition(cond, len(cond), ops.make_rng(seed, first))
    null = model.condition.nulls(len(cond))
    return torch.stack([(maps[r] == null[r]).flatten(1).all(1) for r in maps]).all(0)


@each_kind
def test_dropping_is_a_function_of_seed_and_index(make, kind):
    model = make(kind)
    cond = conditions(model, 64)
    whole = dropped(model, cond, 0)
    assert 0.2 < whole.float().mean() < 0.6
    parts = [dropped(model, cond[i : i + 5], i) for i in range(0, 64, 5)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(dropped(model, cond, 0, seed=6), whole)
    assert not torch.equal(dropped(model, cond, 64), whole)


def test_the_share_that_is_dropped_is_the_one_asked_for(make):
    model = make({"kind": "class", "classes": CLOTHES, "dropout": 0.1})
    share = dropped(model, torch.zeros(20_000, dtype=torch.int64), 0).double().mean().item()
    assert share == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / 20_000))


def test_only_a_training_pass_drops(make, random_images):
    model = make(KINDS["class"])
    x, cond = random_images(model, 16), torch.arange(16) % 3
    given, none = model(x, cond).elbo, model(x).elbo
    model.train()
    trained = model(x, cond).elbo
    gone = dropped(model, cond, 0, seed=0)
    assert 0 < gone.sum() < 16
    torch.testing.assert_close(trained, torch.where(gone, none, given))
    model_samples = model.sample(4, cond=cond[:4])
    latents = model.encode(x, cond)
    model.eval()
    assert torch.equal(model_samples, model.sample(4, cond=cond[:4]))
    assert all(map(torch.equal, latents, model.encode(x, cond)))


def test_a_negative_label_is_no_condition(make, random_images):
    model = make(KINDS["class"])
    x = random_images(model, 3)
    unknown = model(x, torch.full((3,), -1))
    for found, expected in zip(unknown, model(x), strict=True):
        assert torch.equal(found, expected)


def test_without_dropping_there_is_no_unconditional_model(make, random_images):
    model = make({**KINDS["class"], "dropout": 0.0})
    assert model.condition.null is None
    x = random_images(model, 2)
    for call in (
        lambda: model(x),
        lambda: model.sample(2),
        lambda: model.sample(2, cond="trouser", guidance=2.0),
        lambda: model.sample(2, cond=torch.tensor([0, -1])),
    ):
        with pytest.raises(UserError, match=r"knows no example without a condition.*; give cond"):
            call()
    assert model.sample(2, cond="trouser").shape == x.shape


# Sampling and guidance


@each_kind
@pytest.mark.parametrize("guidance", [1.0, 1.7, (2.0, 1.0)])
def test_a_guided_sample_i_is_the_same_bits_whatever_is_drawn_with_it(make, kind, guidance):
    model = make(kind)
    n = CHUNK + 5
    cond = conditions(model, n)
    whole = model.sample(n, cond=cond, guidance=guidance, seed=3)
    for first, count in [(0, 1), (3, CHUNK), (CHUNK, 2)]:
        part = model.sample(
            count, cond=cond[first : first + count], guidance=guidance, first_index=first, seed=3
        )
        assert torch.equal(part, whole[first : first + count])


@each_kind
@pytest.mark.parametrize("output", ["sample", "mean"])
def test_guidance_1_is_the_conditional_and_0_the_unconditional_model(make, kind, output):
    model = make(kind)
    cond = conditions(model, 5)
    conditional = model.sample(5, cond=cond, output=output)
    unconditional = model.sample(5, output=output)
    guided = {
        w: model.sample(5, cond=cond, guidance=w, output=output) for w in (0.0, 0.5, 1.0, 3.0)
    }
    assert torch.equal(guided[1.0], conditional)
    assert torch.equal(guided[0.0], unconditional)
    assert torch.equal(model.sample(5, cond=cond, guidance=(1, 1), output=output), conditional)
    assert len({w: image.numpy().tobytes() for w, image in guided.items()}.values()) == 4
    assert not torch.equal(guided[3.0], conditional)


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_guidance_goes_over_into_both_ends(make, edge):
    model = make(KINDS["class"])
    ends = model.sample(4, cond="trouser", guidance=edge, output="mean").int()
    near = model.sample(4, cond="trouser", guidance=(edge, edge + 1e-6), output="mean").int()
    assert (near - ends).abs().max() <= 1


def test_guidance_is_linear_in_means_and_logarithms_of_stds(make):
    model = make(KINDS["class"], decoder="1x1,8m1", encoder="8x1,8d8,1x1", z_channels=3)
    form = model.decoder.blocks[0].form
    prior, null = torch.randn(2, 4, 9, 2, 2, dtype=torch.float64)
    guided = form.guided(prior, null, mean=1.5, std=0.25)
    std = 1e-3 + torch.log2(1 + 2 ** torch.stack([prior, null])[:, :, 3:6])
    torch.testing.assert_close(guided[:, :3], null[:, :3] + 1.5 * (prior - null)[:, :3])
    torch.testing.assert_close(guided[:, 3:].exp(), std[1] * (std[0] / std[1]) ** 0.25)
    for weight, end in ((1.0, prior), (0.0, null)):
        assert torch.equal(form.guided(end, null, mean=weight, std=1.0)[:, :3], end[:, :3])


def test_guidance_keeps_given_latents(make):
    model = make(KINDS["class"])
    latents = [torch.randn(3, *shape) for shape in model.latent_shapes]
    decoded = model.decode(latents, "trouser").mean_image().int()
    guided = model.sample(3, cond="trouser", guidance=2.0, latents=latents, output="mean").int()
    assert (decoded - guided).abs().max() <= 1


def test_guided_samples_at_temperature_zero_depend_on_no_seed(make):
    model = make(KINDS["vector"])
    cond = conditions(model, 1)[0]
    options = {"cond": cond, "guidance": 1.5, "temperature": 0.0, "output": "mean"}
    assert torch.equal(model.sample(2, seed=0, **options), model.sample(2, seed=1, **options))


# What it is all for


def toy(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Class 0 is dark at the top, class 1 at the bottom."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=generator)
    x = torch.randint(150, 220, (n, 1, 4, 4), generator=generator)
    rows = torch.arange(4)[None] // 2 == labels[:, None]
    return torch.where(rows[:, None, :, None], x - 130, x).to(torch.uint8), labels


def obeys(images: Tensor) -> Tensor:
    """The class an image looks like."""
    halves = images.float().unflatten(2, (2, 2)).mean((1, 3, 4))
    return halves.argmin(1)


def test_a_model_learns_to_obey_and_to_do_without():
    torch.manual_seed(0)
    model = HVAE(
        ModelConfig.model_validate(
            {
                **SMALL,
                "size": (4, 4),
                "encoder": "4x1,4d4,1x1",
                "decoder": "1x1,4m1",
                "width": 16,
                "condition": {"kind": "class", "classes": ("top", "bottom"), "dropout": 0.2},
            }
        )
    )
    optimizer = torch.optim.Adamax(model.parameters(), lr=2e-2)
    for step in range(120):
        x, labels = toy(32, seed=step)
        loss = objective(model(x, labels, rng=ops.make_rng(1, 32 * step)), model.num_dims)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    x, labels = toy(200, seed=999)
    with torch.no_grad():
        right, wrong, none = (
            model(x, cond).bits_per_dim.mean() for cond in (labels, 1 - labels, None)
        )
    assert right < none < wrong
    asked = torch.arange(64) % 2
    assert (obeys(model.sample(64, cond=asked)) == asked).float().mean() > 0.9
    assert (obeys(model.sample(64, cond=asked, guidance=1.5)) == asked).float().mean() > 0.9
    share = obeys(model.sample(200)).float().mean()
    assert 0.25 < share < 0.75


# Words, and words of complaint


@pytest.mark.parametrize("word", ["ankle boot", "ankle-boot", "Ankle_Boot", "2", 2])
def test_classes_go_by_name_or_number(make, word):
    model = make(KINDS["class"])
    wanted = model.sample(2, cond=torch.tensor([2, 2]))
    assert torch.equal(model.sample(2, cond=word), wanted)
    assert torch.equal(model.sample(2, cond=[word, 2]), wanted)


def test_a_class_may_be_named_by_a_number(make):
    model = make({"kind": "class", "classes": ("1", "0")})
    assert (model.condition.label("0"), model.condition.label(0)) == (1, 0)


def test_slugs():
    assert [slug(name) for name in CLOTHES] == ["t-shirt-top", "trouser", "ankle-boot"]


@pytest.mark.parametrize(
    ("kind", "cond", "message"),
    [
        ("class", "ankel-boot", "no class ankel-boot; did you mean ankle-boot?"),
        ("class", "zebra", "no class zebra; classes: t-shirt-top, trouser, ankle-boot"),
        (
            "class",
            3,
            "no class 3; labels go from 0 to 2: t-shirt-top, trouser, ankle-boot",
        ),
        (
            "class",
            torch.tensor([0, 3]),
            "cond: wanted labels from 0 to 2, or -1 for none, got 0 to 3",
        ),
        (
            "class",
            torch.tensor([0, 1, 2]),
            "cond: wanted integer of shape (2,), got torch.int64 (3,)",
        ),
        (
            "class",
            torch.zeros(2),
            "cond: wanted integer of shape (2,), got torch.float32 (2,)",
        ),
        (
            "vector",
            torch.zeros(2, 4),
            "cond: wanted floating point of shape (2, 5), got torch.float32 (2, 4)",
        ),
        ("vector", "trouser", "cond: wanted a tensor for a vector, got 'trouser'"),
        (
            "image",
            torch.zeros(2, 2, 8, 8, dtype=torch.int64),
            "cond: wanted uint8 or floating point of shape (2, 2, 8, 8), "
            "got torch.int64 (2, 2, 8, 8)",
        ),
    ],
)
def test_conditions_that_do_not_fit_are_named(make, kind, cond, message):
    with pytest.raises(UserError) as caught:
        make(KINDS[kind]).sample(2, cond=cond)
    assert str(caught.value) == message


@pytest.mark.parametrize("guidance", [-0.5, (1.0, -1.0), math.nan])
def test_guidance_is_a_weight(make, guidance):
    with pytest.raises(UserError, match="guidance: wanted weights of at least 0"):
        make(KINDS["class"]).sample(1, cond="trouser", guidance=guidance)


def test_guidance_needs_a_condition(make, make_model):
    for model in (make(KINDS["class"]), make_model()):
        with pytest.raises(UserError, match="guidance needs a condition to go toward; give cond"):
            model.sample(1, guidance=2.0)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"kind": "class"}, "model.condition.classes is not set; give the names of the classes"),
        ({"kind": "vector"}, "model.condition.shape is not set; give that of one vector"),
        (
            {"kind": "image", "shape": (1, 3, 3)},
            "model.condition.shape: an image of (1, 3, 3) does not fit the finest level 8x8; its "
            "sides must be those times or divided by one number",
        ),
        (
            {"kind": "vector", "shape": (2, 2)},
            "model.condition.shape: wanted (numbers,), got (2, 2)",
        ),
    ],
)
def test_models_whose_condition_is_not_clear_say_why(make, condition, message):
    with pytest.raises(UserError) as caught:
        make(condition)
    assert str(caught.value) == message


# Conditions made from the data


def test_a_low_resolution_copy_is_the_rounded_mean_of_blocks():
    x = torch.tensor([[[[0, 1, 10, 10], [1, 0, 20, 21]]]], dtype=torch.uint8)
    assert low_resolution(x, 2).tolist() == [[[[1, 15]]]]
    assert low_resolution(torch.full((2, 3, 8), 255, dtype=torch.uint8), 4).tolist() == (
        torch.full((2, 3, 2), 255).tolist()
    )


@pytest.mark.parametrize("size", [(32,), (16, 24), (8, 8, 12)])
def test_masks_hide_one_box_that_depends_on_seed_and_index(size):
    x = torch.randint(1, 256, (40, 2, *size), dtype=torch.uint8)
    mask = random_mask(x, ops.make_rng(1))
    assert mask.shape == (40, 1, *size)
    assert torch.equal(random_mask(x[7:9], ops.make_rng(1, 7)), mask[7:9])
    assert not torch.equal(random_mask(x, ops.make_rng(2)), mask)
    for hidden in ~mask[:, 0]:
        lines = [hidden.movedim(axis, 0).reshape(side, -1) for axis, side in enumerate(size)]
        sides = [line.any(1).sum().item() for line in lines]
        assert hidden.sum().item() == math.prod(sides)
        for found, side in zip(sides, size, strict=True):
            assert round(0.25 * side) <= found <= round(0.75 * side)
    cond = masked(x, mask)
    assert torch.equal(cond[:, 2:] == 255, mask)
    assert torch.equal(cond[:, :2] == 0, (~mask).expand(-1, 2, *size))


def test_a_set_that_does_not_say_is_named(make, random_images):
    model = make(KINDS["class"])
    with pytest.raises(UserError, match="kind is class, but the data has no labels"):
        model.condition_of(random_images(model, 1), rng=ops.make_rng(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes"), [("class", {}), ("image", {"shape": (1, 2, 2)})], ids=["class", "image"]
)
def test_a_conditional_training_pass_compiles_without_graph_breaks(
    make, random_images, kind, changes
):
    torch.compiler.reset()
    two_groups = {"size": (4, 4), "encoder": "4x1,4d4,1x1", "decoder": "1x1,4m1"}
    model = make({**KINDS[kind], **changes}, **two_groups).train()
    x, cond = random_images(model, 4), conditions(model, 4)
    compiled = torch.compile(model, fullgraph=True)
    for first in (0, 7):
        rng = ops.make_rng(1, first)
        wanted, found = model(x, cond, rng=rng), compiled(x, cond, rng=rng)
        torch.testing.assert_close(found.elbo, wanted.elbo, rtol=1e-5, atol=1e-3)
        gradients = [
            torch.autograd.grad(
                objective(elbo, model.num_dims), list(model.parameters()), materialize_grads=True
            )
            for elbo in (wanted, found)
        ]
        a, b = (torch.cat([g.flatten() for g in gradient]) for gradient in gradients)
        assert (a - b).norm() < 1e-4 * a.norm()
