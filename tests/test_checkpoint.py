"""Checkpoints: whole or absent, checked against their configuration, read by every path."""

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
from hvae.models import HVAE, ModelConfig

CONFIG = ModelConfig(
    size=(4, 4), channels=1, encoder="4x1,4d2,2x1", decoder="2x1,4m2", width=4, z_channels=2
)


def write(run: Path, step: int, *, keep_last: int = 2, **state: Any) -> HVAE:
    """Saves a checkpoint of a new random model, whose average is its weights doubled."""
    model = HVAE(CONFIG)
    tensors = {
        "model": model.state_dict(),
        "ema": {name: 2 * tensor for name, tensor in model.state_dict().items()},
        "optim": {"decoder.gain.step": torch.tensor(float(step))},
    }
    everything = {"step": step, "config": {"model": CONFIG.model_dump(mode="json")}, **state}
    checkpoint.save(run, step, tensors, everything, keep_last=keep_last)
    return model


def checkpoints(run: Path) -> set[str]:
    return {folder.name for folder in (run / "checkpoints").iterdir()}


def same(a: HVAE, b: HVAE, factor: float = 1.0) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(factor * x, y) for x, y in pairs)


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


def test_the_saved_state_names_the_hash_of_every_file(tmp_path):
    write(tmp_path, 1, note="kept")
    folder = checkpoint.latest_checkpoint(tmp_path)
    state = checkpoint.read_state(folder)
    assert state["note"] == "kept"
    assert set(state["sha256"]) == {file.name for file in folder.glob("*.safetensors")}
    assert all(len(digest) == 64 for digest in state["sha256"].values())


def test_nothing_else_lies_in_a_checkpoint(tmp_path):
    write(tmp_path, 1)
    names = {file.name for file in (tmp_path / "checkpoints" / "step-1").iterdir()}
    assert names == {"model.safetensors", "ema.safetensors", "optim.safetensors", "state.json"}
    assert {file.name for file in tmp_path.iterdir()} == {"checkpoints", "latest"}


def test_the_newest_checkpoints_are_kept(tmp_path):
    for step in (9, 10, 11, 100):
        write(tmp_path, step, keep_last=2)
    assert checkpoints(tmp_path) == {"step-11", "step-100"}
    write(tmp_path, 101, keep_last=1)
    assert checkpoints(tmp_path) == {"step-101"}
    assert checkpoint.latest_checkpoint(tmp_path).name == "step-101"


def test_checkpoints_ahead_of_a_rewound_run_go(tmp_path):
    write(tmp_path, 5)
    write(tmp_path, 9)
    write(tmp_path, 6)
    assert checkpoints(tmp_path) == {"step-5", "step-6"}
    assert checkpoint.latest_checkpoint(tmp_path).name == "step-6"


class Crash(BaseException):
    """A kill: no handler of the code under test may run on it."""


def crash_at(patch: pytest.MonkeyPatch, countdown: int) -> Callable[[], int]:
    """Raises `Crash` before file operation number `countdown` of a save; counts them."""
    calls = 0

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == countdown:
                raise Crash
            return operation(*args, **options)

        return run

    patch.setattr(checkpoint, "save_file", counted(checkpoint.save_file))
    patch.setattr(checkpoint, "_sync", counted(checkpoint._sync))
    patch.setattr(checkpoint.shutil, "rmtree", counted(shutil.rmtree))
    for name in ("rename", "replace", "mkdir", "write_text"):
        patch.setattr(Path, name, counted(getattr(Path, name)))
    return lambda: calls


@pytest.mark.parametrize("step", [2, 1], ids=["a new step", "the same step again"])
def test_a_kill_at_any_point_of_a_save_leaves_a_whole_checkpoint(tmp_path, step):
    before = tmp_path / "before"
    write(before, 1, result=None)
    with pytest.MonkeyPatch.context() as patch:
        count = crash_at(patch, 0)
        write(shutil.copytree(before, tmp_path / "counted"), step, result="new")
        operations = count()
    assert operations >= 3
    for kill in range(1, operations + 1):
        run = shutil.copytree(before, tmp_path / f"killed-{kill}")
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, kill)
            with pytest.raises(Crash):
                write(run, step, result="new")
        hvae.load(run)
        assert checkpoint.read_state(checkpoint.latest_checkpoint(run))["result"] in (None, "new")
        write(run, 3)  # what the kill left behind is in nobody's way
        assert not list(run.rglob(".step-*"))


def test_the_step_in_force_takes_a_new_state_and_keeps_its_tensors(tmp_path):
    model = write(tmp_path, 1, result=None)
    write(tmp_path, 1, result="new")
    state = checkpoint.read_state(checkpoint.latest_checkpoint(tmp_path))
    assert state["result"] == "new"
    assert set(state["sha256"]) == {"model.safetensors", "ema.safetensors", "optim.safetensors"}
    assert same(model, hvae.load(tmp_path, ema=False))


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    model = write(tmp_path, 1)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, 2)
    assert checkpoint.latest_checkpoint(tmp_path).name == "step-1"
    assert same(model, hvae.load(tmp_path, ema=False))


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


def test_a_latest_that_names_a_gone_folder_is_said(tmp_path):
    write(tmp_path, 3)
    shutil.rmtree(tmp_path / "checkpoints" / "step-3")
    assert message_of(tmp_path) == (
        f"{tmp_path / 'latest'} names step-3, which is not in {tmp_path / 'checkpoints'}"
    )


def test_a_single_file_wants_its_config_beside_it(tmp_path):
    write(tmp_path, 1)
    file = tmp_path / "checkpoints" / "step-1" / "ema.safetensors"
    assert message_of(file).startswith(
        f"{file.with_name('config.json')}: cannot be read as JSON: [Errno 2]"
    )


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_truncated_file_is_named_with_its_size(tmp_path, size):
    write(tmp_path, 1)
    file = tmp_path / "checkpoints" / "step-1" / "ema.safetensors"
    data = file.read_bytes()[:size]
    file.write_bytes(data)
    assert message_of(tmp_path).startswith(
        f"{file} ({len(data)} bytes): not a readable safetensors file: "
    )


def test_a_missing_file_is_named(tmp_path):
    write(tmp_path, 1)
    file = tmp_path / "checkpoints" / "step-1" / "model.safetensors"
    file.unlink()
    assert message_of(tmp_path, ema=False).startswith(
        f"{file} (missing): not a readable safetensors file: "
    )


def edit(file: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def test_tensors_that_do_not_fit_the_configuration_are_named(tmp_path):
    write(tmp_path, 1)
    file = tmp_path / "checkpoints" / "step-1" / "ema.safetensors"

    def change(tensors: dict[str, Tensor]) -> None:
        del tensors["decoder.gain"]
        tensors["decoder.bias"] = torch.zeros(1, 5, 1, 1)
        tensors["decoder.extra"] = torch.zeros(1)

    edit(file, change)
    assert message_of(tmp_path) == (
        f"{file}: does not fit its configuration: "
        "decoder.bias is (1, 5, 1, 1), wanted (1, 4, 1, 1); "
        "decoder.extra is not part of the model; decoder.gain is missing"
    )


def test_a_long_list_of_misfits_is_cut(tmp_path):
    write(tmp_path, 1)
    file = tmp_path / "checkpoints" / "step-1" / "ema.safetensors"
    edit(file, lambda tensors: [tensors.pop(name) for name in list(tensors)[:8]])
    message = message_of(tmp_path)
    assert message.count(" is missing") == 5
    assert message.endswith("; and 3 more")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "cannot be read as JSON: Expecting property name"),
        ("[1]", "wanted a JSON object, got list"),
    ],
)
def test_a_broken_state_is_named(tmp_path, text, reason):
    write(tmp_path, 1)
    file = tmp_path / "checkpoints" / "step-1" / "state.json"
    file.write_text(text)
    assert message_of(tmp_path).startswith(f"{file}: {reason}")


def test_a_configuration_of_another_version_is_named(tmp_path):
    write(tmp_path, 1)
    file = tmp_path / "checkpoints" / "step-1" / "state.json"
    state = json.loads(file.read_text())
    state["config"]["model"]["dropout"] = 0.1
    file.write_text(json.dumps(state))
    message = message_of(tmp_path)
    assert message.startswith(f"{tmp_path}: its model configuration is not valid: ")
    assert "dropout" in message


def test_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "notes"
    checkpoint.write_text(file, "old")

    def crash(path: Path) -> None:
        raise Crash

    monkeypatch.setattr(checkpoint, "_sync", crash)
    with pytest.raises(Crash):
        checkpoint.write_text(file, "new")
    assert file.read_text() == "old"
