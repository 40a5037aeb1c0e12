"""What `hvae.load` takes, and what it says of what it does not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import hvae
from hvae import checkpoint
from hvae.errors import UserError
from tests.checkpoint.conftest import CONFIG, folder_of, same, write


def test_a_model_is_loaded_from_run_checkpoint_and_file(tmp_path):
    model = write(tmp_path, 7)
    folder = tmp_path / "checkpoints" / "step-7"
    (folder / "config.json").write_text(json.dumps(CONFIG.model_dump(mode="json")))
    for path in (tmp_path, str(tmp_path), folder, folder / "ema.safetensors"):
        loaded = hvae.load(path)
        assert same(model, loaded, 2.0)
        assert loaded.config == CONFIG
        assert not loaded.training
    assert same(model, hvae.load(tmp_path, ema=False))
    assert same(model, hvae.load(folder / "model.safetensors"))


def test_a_run_without_checkpoints_has_no_latest(tmp_path):
    assert checkpoint.latest_checkpoint(tmp_path) is None
    assert checkpoint.latest_checkpoint(tmp_path / "absent") is None


def message_of(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        hvae.load(path, **options)
    return str(caught.value)


WANTED = "wanted a run folder, a checkpoint folder or a .safetensors file"


def test_what_is_not_there_is_said(tmp_path):
    absent = tmp_path / "absent"
    assert message_of(absent) == f"{absent}: no such folder; {WANTED}"
    assert message_of(tmp_path) == f"{tmp_path}: no checkpoint in it; {WANTED}"


def test_what_is_no_checkpoint_is_said(tmp_path):
    write(tmp_path, 3)
    best = tmp_path / "best"
    assert message_of(best) == f"{best}: no such file; a run with train.keep_best=true has one"
    shutil.rmtree(folder_of(tmp_path, 3))
    gone = f"{tmp_path}: no checkpoint of it is complete; step-3: it is gone"
    assert message_of(tmp_path) == gone


def test_a_latest_that_names_a_gone_folder_is_said(tmp_path):
    write(tmp_path, 3)
    shutil.rmtree(folder_of(tmp_path, 3))
    with pytest.raises(UserError) as caught:
        checkpoint.latest_checkpoint(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'latest'} names step-3, which is not in {tmp_path / 'checkpoints'}"
    )


def bare_weights(tmp_path: Path) -> Path:
    """Averaged weights with their configuration beside them, and nothing else."""
    write(tmp_path / "run", 1)
    file = tmp_path / "weights.safetensors"
    shutil.copy(folder_of(tmp_path / "run", 1) / "ema.safetensors", file)
    file.with_name("config.json").write_text(json.dumps(CONFIG.model_dump(mode="json")))
    return file


def test_a_file_in_a_checkpoint_brings_its_configuration(tmp_path):
    model = write(tmp_path, 1)
    assert same(model, hvae.load(folder_of(tmp_path, 1) / "ema.safetensors"), 2.0)


def test_a_single_file_wants_its_config_beside_it(tmp_path):
    file = bare_weights(tmp_path)
    file.with_name("config.json").unlink()
    assert message_of(file).startswith(
        f"{file.with_name('config.json')}: cannot be read as JSON: [Errno 2]"
    )


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_truncated_file_is_named_with_its_size(tmp_path, size):
    file = bare_weights(tmp_path)
    data = file.read_bytes()[:size]
    file.write_bytes(data)
    assert message_of(file).startswith(
        f"{file} ({len(data)} bytes): not a readable safetensors file: "
    )


def test_a_missing_file_is_named(tmp_path):
    file = bare_weights(tmp_path)
    file.unlink()
    assert message_of(file).startswith(f"{file} (missing): not a readable safetensors file: ")


def edit(file: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def test_tensors_that_do_not_fit_the_configuration_are_named(tmp_path):
    file = bare_weights(tmp_path)

    def change(tensors: dict[str, Tensor]) -> None:
        del tensors["decoder.gain"]
        tensors["decoder.bias"] = torch.zeros(1, 5, 1, 1)
        tensors["decoder.extra"] = torch.zeros(1)

    edit(file, change)
    assert message_of(file) == (
        f"{file}: does not fit its configuration: "
        "decoder.bias is (1, 5, 1, 1), wanted (1, 4, 1, 1); "
        "decoder.extra is not part of the model; decoder.gain is missing"
    )


def test_a_long_list_of_misfits_is_cut(tmp_path):
    file = bare_weights(tmp_path)
    edit(file, lambda tensors: [tensors.pop(name) for name in list(tensors)[:8]])
    message = message_of(file)
    assert message.count(" is missing") == 5
    assert message.endswith("; and 3 more")
