"""Published checkpoint files into run folders and out again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import hvae
from hvae.errors import UserError
from hvae.models import HVAE
from hvae.training import vdvae
from hvae.training.config_file import load_config

FIXTURE = Path(__file__).parents[1] / "golden" / "vdvae_tiny.safetensors"
ENCODER = "32x1,32d2,16x1,16d2,8x1,8d2,4x1,4d4,1x1"
DECODER = "1x1,4m1,4x1,8m4,8x1,16m8,16x1,32m16,32x1"


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return {k: v for k, v in load_file(FIXTURE).items() if k.startswith(("encoder.", "decoder."))}


@pytest.fixture
def imported(tensors: dict[str, Tensor], tmp_path: Path) -> Path:
    config = vdvae.layout_config(tensors, ENCODER, DECODER)
    vdvae.import_vdvae(tensors, config, tmp_path / "runs" / "tiny")
    return tmp_path / "runs" / "tiny"


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_tensors_go_in_and_come_out_identical(tensors, tmp_path, prefix, form):
    suffix = ".safetensors" if form == "safetensors" else ".th"
    file, out = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    named = {prefix + name: tensor for name, tensor in tensors.items()}
    if form == "safetensors":
        save_file(named, file)
    else:  # torch before 1.6 wrote no zip file
        torch.save(named, file, _use_new_zipfile_serialization=form == "zip")
    read = vdvae.read_published(file)
    run = tmp_path / "run"
    vdvae.import_vdvae(read, vdvae.layout_config(read, ENCODER, DECODER), run)
    vdvae.export_vdvae(hvae.load(run), out)
    again = vdvae.read_published(out)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_an_imported_run_is_a_run(imported):
    model = hvae.load(imported)
    assert isinstance(model, HVAE)
    images = model.sample(2, seed=1)
    assert images.shape == (2, 3, 32, 32)
    latents = model.encode(images)
    assert len(latents) == 9
    assert model.decode(latents[:4]).mean_image().shape == images.shape
    assert load_config(imported / "config.yaml").model.size == (32, 32)


def test_a_folder_with_a_run_is_refused(imported, tensors):
    config = vdvae.layout_config(tensors, ENCODER, DECODER)
    with pytest.raises(UserError, match="holds a run already"):
        vdvae.import_vdvae(tensors, config, imported)


def test_a_folder_whose_name_is_none_of_a_run_is_refused(tensors, tmp_path):
    config = vdvae.layout_config(tensors, ENCODER, DECODER)
    with pytest.raises(UserError, match='"name"'):
        vdvae.import_vdvae(tensors, config, tmp_path / "my run")
    assert not list(tmp_path.iterdir())


def test_a_layout_that_does_not_fit_writes_nothing(tensors, tmp_path):
    config = vdvae.layout_config(tensors, ENCODER, DECODER.replace("32x1", "32x2"))
    run = tmp_path / "run"
    with pytest.raises(UserError, match="it has 9 decoder blocks, the layout 10"):
        vdvae.import_vdvae(tensors, config, run)
    assert not run.exists()


@pytest.mark.parametrize("preset", vdvae.presets())
def test_a_preset_is_found_by_its_tensors(preset):
    config = load_config(f"vdvae/{preset}")
    with torch.device("meta"):
        size = (config.data.size,) * 2
        model = HVAE(config.model.model_copy(update={"size": size, "channels": 3}))
    from hvae.models.vdvae import to_meta

    found = vdvae.preset_config(to_meta(model), None)
    assert found.name == preset
    assert found.model.encoder == config.model.encoder


def test_a_preset_that_does_not_fit_says_how(tensors):
    with pytest.raises(UserError) as caught:
        vdvae.preset_config(tensors, "cifar10")
    message = str(caught.value)
    assert message.startswith("the checkpoint does not fit preset cifar10: it has 32 channels at")
    assert "it has 9 encoder blocks, the layout 33" in message


def test_an_unknown_preset_lists_those_there_are(tensors):
    with pytest.raises(UserError, match=r"no preset 'cifar'; there are cifar10, ffhq1024"):
        vdvae.preset_config(tensors, "cifar")


def test_without_a_fitting_preset_a_layout_is_asked_for(tensors):
    with pytest.raises(UserError, match=r"fits no preset .* --layout ENCODER DECODER"):
        vdvae.preset_config(tensors, None)


class Hostile:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return print, ("executed",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "wanted a dictionary of tensors, got a list"),
        ({"step": 3}, "wanted a dictionary of tensors, but 'step' is a int"),
        ({"state": {}, "param_groups": []}, "an optimiser's state?"),
        (Hostile(), "cannot be read as a dictionary of tensors"),
    ],
)
def test_a_file_of_anything_else_is_refused(tmp_path, capsys, content, message):
    file = tmp_path / "other.th"
    torch.save(content, file)
    with pytest.raises(UserError, match=message) as caught:
        vdvae.read_published(file)
    assert str(caught.value).startswith(str(file))
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_refused(tmp_path, content):
    file = tmp_path / "damaged.th"
    file.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as a dictionary of tensors"):
        vdvae.read_published(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        vdvae.read_published(tmp_path / "absent.th")
