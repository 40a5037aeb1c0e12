"""Saving: whole or absent after a kill at any point; what is kept, and what goes."""

import errno
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

import hvae
from hvae import checkpoint
from hvae import files as written
from hvae.checkpoint import files, saving
from hvae.errors import StorageError
from tests.checkpoint.conftest import checkpoints, folder_of, same, write
from tests.checkpoint.crash import Crash, crash_at

NOTHING: dict[str, dict[str, torch.Tensor]] = {}


def keep(run: Path, step: int, keep_last: int, *steps: int, best: int | None = None) -> None:
    checkpoint.save(run, step, NOTHING, {}, keep_last=keep_last, keep=steps, best=best)


def test_the_saved_state_names_the_hash_of_every_file(tmp_path):
    write(tmp_path, 1, note="kept")
    folder = checkpoint.latest_checkpoint(tmp_path)
    state = checkpoint.read_state(folder)
    assert state["note"] == "kept"
    assert set(state["sha256"]) == {file.name for file in folder.glob("*.safetensors")}
    assert all(len(digest) == 64 for digest in state["sha256"].values())
    assert checkpoint.damage(folder) is None


def test_nothing_else_lies_in_a_checkpoint(tmp_path):
    write(tmp_path, 1)
    names = {file.name for file in (tmp_path / "checkpoints" / "step-1").iterdir()}
    assert names == {"model.safetensors", "ema.safetensors", "optim.safetensors", "state.json"}
    assert {file.name for file in tmp_path.iterdir()} == {"checkpoints", "latest"}


def test_the_newest_checkpoints_are_kept(tmp_path):
    for step in (9, 10, 11, 100):
        keep(tmp_path, step, 2)
    assert checkpoints(tmp_path) == {"step-11", "step-100"}
    keep(tmp_path, 101, 1)
    assert checkpoints(tmp_path) == {"step-101"}
    assert checkpoint.latest_checkpoint(tmp_path).name == "step-101"


def test_named_steps_are_kept_whatever_their_age(tmp_path):
    for step in (1, 2, 3):
        keep(tmp_path, step, 9)
    keep(tmp_path, 4, 1, 1, 3)
    assert checkpoints(tmp_path) == {"step-1", "step-3", "step-4"}


def test_checkpoints_ahead_of_a_rewound_run_go(tmp_path):
    for step in (5, 9, 6):
        keep(tmp_path, step, 2)
    assert checkpoints(tmp_path) == {"step-5", "step-6"}
    assert checkpoint.latest_checkpoint(tmp_path).name == "step-6"


def test_best_names_a_checkpoint_until_there_is_none(tmp_path):
    keep(tmp_path, 1, 1, best=1)
    keep(tmp_path, 2, 1, 1, best=1)
    assert (tmp_path / "best").read_text() == "step-1\n"
    assert checkpoint.find_checkpoint(tmp_path / "best") == folder_of(tmp_path, 1)
    keep(tmp_path, 3, 1)
    assert not (tmp_path / "best").exists()
    assert checkpoints(tmp_path) == {"step-3"}


@pytest.mark.parametrize("step", [2, 1], ids=["a new step", "the same step again"])
def test_a_kill_at_any_point_of_a_save_leaves_a_whole_checkpoint(tmp_path, step):
    before = tmp_path / "before"
    write(before, 1, result=None)
    whole = shutil.copytree(before, tmp_path / "whole")
    with crash_at(0) as count:
        write(whole, step, keep_last=1, result="new")
        operations = count()
    assert operations >= 3
    for kill in range(1, operations + 1):
        run = shutil.copytree(before, tmp_path / f"killed-{kill}")
        with pytest.raises(Crash), crash_at(kill):
            write(run, step, keep_last=1, result="new")
        with warnings.catch_warnings(action="error"):  # a kill damages nothing
            found = checkpoint.find_checkpoint(run)
        assert checkpoint.read_state(found)["result"] in (None, "new")
        for folder in (run / "checkpoints").glob("step-*"):
            assert checkpoint.damage(folder) is None
        write(run, 3, keep_last=1)  # what the kill left behind is in nobody's way
        assert checkpoints(run) == {"step-3"}


def test_a_kill_at_any_point_of_the_first_save_leaves_none_or_a_whole_one(tmp_path):
    with crash_at(0) as count:
        write(tmp_path / "whole", 1)
        operations = count()
    kinds = set()
    for kill in range(1, operations + 1):
        run = tmp_path / f"killed-{kill}"
        with pytest.raises(Crash), crash_at(kill):
            write(run, 1)
        found = checkpoint.newest_complete(run)
        kinds.add((found.checkpoint and found.checkpoint.name, str(found)))
        if found.checkpoint is not None:
            with warnings.catch_warnings(action="ignore"):
                checkpoint.adopt(run, found)
            assert checkpoint.latest_checkpoint(run) == found.checkpoint
        write(run, 2)
    missing = ("step-1", "latest: it is missing")  # between its rename and that of `latest`
    assert kinds == {(None, ""), missing, ("step-1", "")}


def test_a_kill_at_any_point_of_going_back_leaves_a_run_that_goes_on(tmp_path):
    before = tmp_path / "before"
    for step in (1, 2, 3):
        keep(before, step, 9)
    whole = shutil.copytree(before, tmp_path / "whole")
    with crash_at(0) as count:
        checkpoint.rewind(whole, 1)
        operations = count()
    assert operations >= 6
    for kill in range(1, operations + 1):
        run = shutil.copytree(before, tmp_path / f"killed-{kill}")
        with pytest.raises(Crash), crash_at(kill):
            checkpoint.rewind(run, 1)
        found = checkpoint.newest_complete(run)
        assert found.checkpoint.name in ("step-1", "step-3")
        assert not found.damaged
        checkpoint.rewind(run, 1)
        keep(run, 2, 9)
        assert checkpoints(run) == {"step-1", "step-2"}


def test_the_step_in_force_takes_a_new_state_and_keeps_its_tensors(tmp_path):
    model = write(tmp_path, 1, result=None)
    write(tmp_path, 1, result="new")
    state = checkpoint.read_state(checkpoint.latest_checkpoint(tmp_path))
    assert state["result"] == "new"
    assert set(state["sha256"]) == {"model.safetensors", "ema.safetensors", "optim.safetensors"}
    assert same(model, hvae.load(tmp_path, ema=False))


def test_a_step_in_force_whose_state_is_damaged_is_saved_whole(tmp_path):
    write(tmp_path, 1)
    (folder_of(tmp_path, 1) / "state.json").write_text("{")
    model = write(tmp_path, 1)
    assert same(model, hvae.load(tmp_path, ema=False))
    assert checkpoints(tmp_path) == {"step-1"}


FAILURES = {
    "the first byte": lambda *args: fail(OSError(errno.ENOSPC, "No space left on device")),
    "a tensor": lambda *args: fail(SafetensorError("I/O error: No space left on device")),
}


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
def test_a_disk_that_fills_up_leaves_the_old_checkpoint_and_no_rest(tmp_path, monkeypatch, failure):
    model = write(tmp_path, 1)
    monkeypatch.setattr(saving, "save_file", failure)
    with pytest.raises(StorageError) as caught:
        write(tmp_path, 2)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: a checkpoint needs 0.1 MiB, ")
    assert "MiB are free: " in message
    assert "No space left on device. What was saved before is as it was" in message
    assert checkpoints(tmp_path) == {"step-1"}
    assert same(model, hvae.load(tmp_path, ema=False))


def full_from(operation: int) -> Callable[..., Any]:
    """An `os.fsync` that finds no space from a call on, as delayed allocation does."""
    calls = 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= operation:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

    return fsync


def test_a_quota_at_any_sync_of_a_save_is_told_and_the_run_goes_on(tmp_path, monkeypatch):
    for operation in range(1, 9):
        run = tmp_path / str(operation)
        write(run, 1)
        with monkeypatch.context() as patch:
            patch.setattr(written.os, "fsync", full_from(operation))
            with pytest.raises(StorageError, match="Disk quota exceeded"):
                write(run, 2)
        assert not list(run.rglob(".*.tmp"))
        hvae.load(run)
        write(run, 3, keep_last=1)
        assert checkpoints(run) == {"step-3"}


def test_too_little_space_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    write(tmp_path, 1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage._replace(free=1 << 15))
    monkeypatch.delattr(saving, "save_file")
    with pytest.raises(StorageError, match=r"a checkpoint needs 0\.1 MiB, 0\.0 MiB are free: "):
        write(tmp_path, 2)
    assert checkpoints(tmp_path) == {"step-1"}


def test_an_error_that_is_no_full_disk_stays_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "save_file", lambda *args: fail(PermissionError(13, "denied")))
    with pytest.raises(PermissionError):
        write(tmp_path, 1)
    assert checkpoints(tmp_path) == set()


def test_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "notes"
    written.write_text(file, "old")

    def crash(path: Path) -> None:
        raise Crash

    monkeypatch.setattr(written, "sync", crash)
    with pytest.raises(Crash):
        written.write_text(file, "new")
    assert file.read_text() == "old"
