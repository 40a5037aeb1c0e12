"""Damage is found by every reader, and the newest complete checkpoint takes over."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import hvae
from hvae import checkpoint
from hvae.errors import UserError
from tests.checkpoint.conftest import checkpoints, folder_of, same, write


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


DIFFERS = "is not what was saved; its sha256 differs"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (lambda f: flip(f / "ema.safetensors", -1), DIFFERS),
    "a flipped bit of a header": (lambda f: flip(f / "model.safetensors", 30), DIFFERS),
    "a truncated file": (lambda f: truncate(f / "optim.safetensors"), DIFFERS),
    "an empty file": (lambda f: (f / "optim.safetensors").write_bytes(b""), "(0 bytes) is not"),
    "a missing file": (lambda f: (f / "model.safetensors").unlink(), "safetensors is missing"),
    "a folder for a file": (
        lambda f: ((f / "ema.safetensors").unlink(), (f / "ema.safetensors").mkdir()),
        "ema.safetensors is missing",
    ),
    "a state cut short": (lambda f: truncate(f / "state.json"), "state.json: cannot be read"),
    "no state": (lambda f: (f / "state.json").unlink(), "state.json: cannot be read as JSON"),
    "an empty folder": (lambda f: (shutil.rmtree(f), f.mkdir()), "state.json: cannot be read"),
    "no folder": (shutil.rmtree, "it is gone"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.values(), ids=DAMAGES.keys())
def test_the_newest_complete_checkpoint_takes_over(tmp_path, damage, reason):
    model = write(tmp_path, 1)
    write(tmp_path, 2)
    damage(folder_of(tmp_path, 2))
    found = checkpoint.newest_complete(tmp_path)
    assert found.checkpoint == folder_of(tmp_path, 1)
    (told,) = found.damaged
    assert told.path == folder_of(tmp_path, 2)
    assert reason in told.reason
    there = folder_of(tmp_path, 2).exists()

    with pytest.warns(UserWarning, match=r"step-2: .*\. Going on from step-1$"):
        checkpoint.adopt(tmp_path, found)
    assert checkpoint.latest_checkpoint(tmp_path) == folder_of(tmp_path, 1)
    kept = {"damaged-step-2"} if there else set()
    assert checkpoints(tmp_path) == {"step-1"} | kept
    with warnings.catch_warnings(action="error"):
        assert same(model, hvae.load(tmp_path), 2.0)
    write(tmp_path, 2)
    write(tmp_path, 3, keep_last=1)
    assert checkpoints(tmp_path) == {"step-3"} | kept, "what was set aside is never removed"


def test_readers_leave_a_damaged_checkpoint_where_it_is_and_warn(tmp_path):
    model = write(tmp_path, 1)
    write(tmp_path, 2)
    flip(folder_of(tmp_path, 2) / "ema.safetensors", -1)
    with pytest.warns(UserWarning, match=f"^{tmp_path}: step-2: ema.*Using step-1$"):
        assert same(model, hvae.load(tmp_path), 2.0)
    with pytest.warns(UserWarning, match="Using step-1"):
        hvae.load(tmp_path / "latest")
    assert checkpoints(tmp_path) == {"step-1", "step-2"}
    assert checkpoint.latest_checkpoint(tmp_path) == folder_of(tmp_path, 2)


def test_only_the_file_that_is_read_has_to_be_whole(tmp_path):
    write(tmp_path, 1)
    newest = write(tmp_path, 2)
    flip(folder_of(tmp_path, 2) / "optim.safetensors", -1)
    assert same(newest, hvae.load(tmp_path), 2.0)
    assert checkpoint.newest_complete(tmp_path).checkpoint == folder_of(tmp_path, 1)


@pytest.mark.parametrize(
    "name", ["checkpoints/step-2", "best", "checkpoints/step-2/ema.safetensors"]
)
def test_a_checkpoint_that_is_named_itself_is_refused(tmp_path, name):
    write(tmp_path, 1)
    write(tmp_path, 2)
    (tmp_path / "best").write_text("step-2\n")
    flip(folder_of(tmp_path, 2) / "ema.safetensors", -1)
    with pytest.raises(UserError) as caught:
        hvae.load(tmp_path / name)
    size = (folder_of(tmp_path, 2) / "ema.safetensors").stat().st_size
    assert str(caught.value) == (
        f"{folder_of(tmp_path, 2)}: this checkpoint is damaged: ema.safetensors ({size} bytes) "
        f"{DIFFERS}"
    )


def test_every_bit_of_a_state_that_matters_is_covered(tmp_path):
    """A flip is noticed, or leaves every value as it was (white space)."""
    state = {"note": 0.1, "rows": [1, 2, {"deep": None, "text": "a b"}], "large": 2**60}
    checkpoint.save(tmp_path, 1, {"m": {"a": torch.zeros(1)}}, state, keep_last=1)
    file = folder_of(tmp_path, 1) / "state.json"
    data, values = file.read_bytes(), checkpoint.read_state(file.parent)
    silent = 0
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        file.write_bytes(changed)
        try:
            found = checkpoint.read_state(file.parent)
        except UserError:
            continue
        found = {key: value for key, value in found.items() if key in values}
        assert found == values
        silent += 1
    assert silent < len(data) // 4


def test_a_checkpoint_from_before_the_digest_loads(tmp_path):
    model = write(tmp_path, 1)
    file = folder_of(tmp_path, 1) / "state.json"
    state = json.loads(file.read_text())
    del state["state_sha256"]
    file.write_text(json.dumps(state, indent=1))
    assert same(model, hvae.load(tmp_path), 2.0)


@pytest.mark.parametrize(
    "text", ["", "\n", "step-2", "step-", "step-2\x00", "../../etc\n", "x" * 999]
)
def test_a_damaged_latest_gives_way_to_the_newest_checkpoint(tmp_path, text):
    write(tmp_path, 1)
    model = write(tmp_path, 2)
    (tmp_path / "latest").write_text(text)
    if text == "step-2":
        assert same(model, hvae.load(tmp_path), 2.0)
        return
    with pytest.warns(UserWarning, match=r"latest: wanted the name of a checkpoint.*Using step-2"):
        assert same(model, hvae.load(tmp_path), 2.0)
    with pytest.warns(UserWarning, match="Going on from step-2"):
        checkpoint.adopt(tmp_path, checkpoint.newest_complete(tmp_path))
    assert (tmp_path / "latest").read_text() == "step-2\n"


def test_a_lost_latest_gives_way_to_the_newest_checkpoint(tmp_path):
    write(tmp_path, 1)
    (tmp_path / "latest").unlink()
    assert checkpoint.has_checkpoints(tmp_path)
    with pytest.warns(UserWarning, match="latest: it is missing. Using step-1"):
        hvae.load(tmp_path)


def test_checkpoints_ahead_of_latest_do_not_count(tmp_path):
    """They belong to a run that went back, or to a save that was killed."""
    for step in (1, 2, 3):
        write(tmp_path, step, keep_last=3)
    (tmp_path / "latest").write_text("step-2\n")
    assert checkpoint.newest_complete(tmp_path).checkpoint == folder_of(tmp_path, 2)
    flip(folder_of(tmp_path, 2) / "model.safetensors", -1)
    assert checkpoint.newest_complete(tmp_path).checkpoint == folder_of(tmp_path, 1)


def test_without_a_complete_checkpoint_all_damage_is_named(tmp_path):
    for step in (1, 2):
        write(tmp_path, step)
        (folder_of(tmp_path, step) / "ema.safetensors").unlink()
    with pytest.raises(UserError) as caught:
        hvae.load(tmp_path)
    missing = "ema.safetensors is missing"
    assert str(caught.value) == (
        f"{tmp_path}: no checkpoint of it is complete; step-2: {missing}; step-1: {missing}"
    )


def test_two_damaged_checkpoints_of_a_step_are_both_kept(tmp_path):
    write(tmp_path, 1)
    for _ in range(2):
        write(tmp_path, 2)
        (folder_of(tmp_path, 2) / "ema.safetensors").unlink()
        with pytest.warns(UserWarning, match="Set aside as damaged-step-2"):
            checkpoint.adopt(tmp_path, checkpoint.newest_complete(tmp_path))
    assert checkpoints(tmp_path) == {"step-1", "damaged-step-2", "damaged-step-2-2"}


def test_a_run_goes_back_past_a_damaged_checkpoint(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path, step, keep_last=3)
    (folder_of(tmp_path, 2) / "optim.safetensors").unlink()
    with pytest.warns(UserWarning, match="step-2: optim.safetensors is missing"):
        assert checkpoint.rewind(tmp_path, 2) == folder_of(tmp_path, 1)
    assert checkpoints(tmp_path) == {"step-1", "damaged-step-2"}
