"""Published names, and what is read off the tensors of a checkpoint."""

import pytest
import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.models import HVAE, ModelConfig
from hvae.models.vdvae import (
    Structure,
    differences,
    load_published,
    published_names,
    to_published,
)

ENCODER, DECODER = "8x1,8d2,4x1,4d4,1x1", "1x1,4m1,4x1,8m4"


def make(**settings: object) -> HVAE:
    torch.manual_seed(0)
    values = {
        "preset": "vdvae", "size": (8, 8), "channels": 3, "encoder": ENCODER, "decoder": DECODER,
        "width": 8, "widths": {4: 16, 1: 16}, "z_channels": 3,
        "likelihood": {"mixtures": 2},
    }  # fmt: skip
    return HVAE(ModelConfig.model_validate(values | settings))


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return to_published(make())


def test_names_follow_the_published_order():
    names = list(published_names(make()).values())
    parts = [name.split(".")[1] for name in names]
    assert list(dict.fromkeys(parts)) == [
        "in_conv", "enc_blocks", "gain", "bias", "dec_blocks", "bias_xs", "out_net",
    ]  # fmt: skip
    assert [n for n in names if "bias_xs" in n] == [f"decoder.bias_xs.{i}" for i in range(3)]
    stem = "decoder.dec_blocks.0"
    block = dict.fromkeys(n.removeprefix(stem).split(".")[1] for n in names if n.startswith(stem))
    assert list(block) == ["enc", "prior", "z_proj", "resnet"]


def test_starting_maps_are_numbered_from_coarse_to_fine(tensors):
    assert [tuple(tensors[f"decoder.bias_xs.{i}"].shape) for i in range(3)] == [
        (1, 16, 1, 1), (1, 16, 4, 4), (1, 8, 8, 8),
    ]  # fmt: skip


def test_a_layout_is_completed_by_the_tensors(tensors):
    config = Structure.of(tensors).config(ENCODER, DECODER)
    wanted = make().config
    for key in ("size", "channels", "width", "z_channels", "bottleneck", "likelihood"):
        assert getattr(config, key) == getattr(wanted, key), key
    assert {r: config.width_at(r) for r in (8, 4, 1)} == {8: 8, 4: 16, 1: 16}
    assert not differences(tensors, HVAE(config))


def test_tensors_come_back_unchanged(tensors):
    model = make(width=8)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 7.0)
    load_published(model, tensors)
    again = to_published(model)
    assert list(again) == list(tensors)
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"z_channels": 4}, "it has 3 latent channels, the layout 4"),
        ({"likelihood": {"mixtures": 5}}, "it has 2 mixtures, the layout 5"),
        ({"channels": 1}, "it has 3 image channels, the layout 1"),
        ({"encoder": "8x2,8d2,4x1,4d4,1x1"}, "it has 5 encoder blocks, the layout 6"),
        ({"decoder": "1x1,4m1,8m4"}, "it has 4 decoder blocks, the layout 3"),
        ({"no_bias_above": 4}, "it has starting maps at 1, 4, 8, the layout at 1, 4"),
        (
            {"widths": {4: 16, 1: 8}},
            "decoder block 0 has 16 channels, 4 inside, 1x1, in the layout 8 channels, 2 inside",
        ),
        (
            {"bottleneck": 0.5},
            "encoder block 0 has 8 channels, 2 inside, 3x3, in the layout 8 channels, 4 inside",
        ),
    ],
)
def test_differences_are_told_in_words(tensors, settings, message):
    settings = {"widths": {4: 16, 1: 16}} | settings
    assert any(line.startswith(message) for line in differences(tensors, make(**settings)))


def test_a_block_that_is_missing_is_named(tensors):
    rest = {n: t for n, t in tensors.items() if not n.startswith("encoder.enc_blocks.2.")}
    with pytest.raises(UserError, match=r"encoder\.enc_blocks\.2\.c1\.weight is missing"):
        differences(rest, make())
    last = {n: t for n, t in tensors.items() if not n.startswith("decoder.dec_blocks.3.")}
    assert "it has 3 decoder blocks, the layout 4" in differences(last, make())


def test_a_tensor_that_is_missing_or_one_too_many_is_named(tensors):
    rest = dict(tensors) | {"extra.weight": torch.zeros(1)}
    del rest["decoder.gain"]
    assert differences(rest, make()) == [
        "decoder.gain is missing",
        "extra.weight is not part of the layout",
    ]


def test_a_tensor_of_another_shape_is_named(tensors):
    bad = dict(tensors) | {"decoder.gain": torch.ones(1, 9, 1, 1)}
    assert differences(bad, make()) == ["decoder.gain is (1, 9, 1, 1), wanted (1, 8, 1, 1)"]
    with pytest.raises(UserError, match=r"checkpoint and layout differ: decoder\.gain is"):
        load_published(make(), bad)


def test_tensors_of_something_else_are_refused():
    with pytest.raises(UserError, match=r"not a whole VDVAE checkpoint: encoder\.in_conv\.weight"):
        Structure.of({"weight": torch.zeros(2)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"std": "softplus"}, "model.std is softplus, not log"),
        ({"activation": "silu"}, "model.activation is silu, not gelu"),
        ({"patch": 2, "size": (16, 16)}, "model.patch is 2, not 1"),
        ({"size": (8, 16)}, r"model.size is \(8, 16\), not a square"),
        ({"channels": 4}, "model.channels is 4, not 1 or 3"),
        (
            {"likelihood": {"kind": "gaussian"}},
            "model.likelihood.kind is gaussian, not logistic_mixture",
        ),
        ({"likelihood": {"coupled": False}}, "model.likelihood.coupled is False, not True"),
    ],
)
def test_models_of_other_families_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        published_names(make(**settings))
