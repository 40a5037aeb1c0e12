"""Disks that are full or read-only, by the command line: one line, and nothing saved is lost."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hvae
from hvae import checkpoint
from hvae.cli.main import app
from hvae.errors import StorageError
from hvae.training import Config, fit
from tests.training.test_resume import TIMEOUT, contents, rows

ADVICE = "make room and run the same command again"
LIMIT = 16 << 10  # bytes: between the largest text and the smallest file of tensors
TMPFS = 320 << 10  # bytes: for two checkpoints of the tiny run and not for the third


def train(config: Path, *overrides: str, limit: int | None = None) -> tuple[int, str]:
    """Returns exit code and stderr of `hvae train`, under a limit to the size of a file."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = subprocess.run(
        [sys.executable, "-m", "hvae", "train", str(config), *overrides],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        preexec_fn=limited,
    )
    return process.returncode, process.stderr


def mount(folder: Path, *options: str) -> None:
    """Mounts a small file system in memory, or skips the test where that is not allowed."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting takes root")
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    mount(disk, "-o", f"size={TMPFS}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def last_line(errors: str) -> str:
    return errors.splitlines()[-1]


def test_a_full_disk_ends_a_run_that_goes_on_once_there_is_room(
    config_file: Path, tiny: Callable[..., Config], small_disk: Path, tmp_path: Path
) -> None:
    settings = ("train.keep_last=9", "train.log_every=8")
    code, errors = train(config_file, f"runs_dir={small_disk}", *settings)
    run = small_disk / "tiny"
    assert code == 1, errors
    line = last_line(errors)
    assert line.startswith(f"hvae: {run}: a checkpoint needs 0.1 MiB, 0.1 MiB are free: ")
    assert line.endswith("What was saved before is as it was; " + ADVICE)
    assert "Traceback" not in errors
    found = checkpoint.newest_complete(run)
    assert found.checkpoint is not None
    assert not found.damaged
    assert not list(run.rglob(".*.tmp"))
    hvae.load(run)

    with pytest.raises(StorageError, match="the disk is too full"):
        fit(tiny(f"runs_dir={small_disk}", *settings))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    fit(tiny(f"runs_dir={small_disk}", *settings))
    fit(tiny("name=whole", *settings))
    assert rows(run) == rows(tmp_path / "whole")
    assert contents(run) == contents(tmp_path / "whole")


def test_a_write_that_fails_half_way_leaves_no_rest(
    config_file: Path, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    """A limit to the size of a file is not seen beforehand, as a quota is not."""
    run = tmp_path / "tiny"
    fit(tiny("train.images=8"))
    code, errors = train(config_file, "train.images=16", limit=LIMIT)
    assert code == 1, errors
    line = last_line(errors)
    assert line.startswith(f"hvae: {run}: a checkpoint needs 0.1 MiB, ")
    assert "File too large" in line
    assert line.endswith(ADVICE)
    assert "Traceback" not in errors
    assert not list(run.rglob(".*.tmp"))
    found = checkpoint.newest_complete(run)
    assert (found.checkpoint, found.damaged) == (run / "checkpoints" / "step-2", ())
    assert fit(tiny("train.images=16")).images == 16


@pytest.mark.slow
def test_a_log_that_cannot_grow_leaves_no_half_row(config_file: Path, tmp_path: Path) -> None:
    log, settings = tmp_path / "tiny" / "metrics.jsonl", ("train.checkpoint_every=999",)
    # More than the configuration takes, and less than the log will.
    code, errors = train(config_file, *settings, "train.images=4096", limit=LIMIT // 4)
    assert code == 1, errors
    assert last_line(errors).startswith(f"hvae: {log.parent}: the next file cannot be written, ")
    assert log.read_bytes().endswith(b"}\n")
    assert 0 < len(rows(log.parent)) < 1024


def test_a_read_only_disk_is_wrong_use(config_file: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    result = CliRunner().invoke(app, ["train", str(config_file), f"runs_dir={small_disk}"])
    assert result.exit_code == 2
    assert result.stderr == (
        f"hvae: {small_disk / 'tiny'}: cannot write the run folder: [Errno 30] Read-only file "
        f"system: '{small_disk / 'tiny'}'\n"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("name", [".", "samples", "checkpoints"])
def test_a_folder_that_may_not_be_written_is_wrong_use(
    config_file: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "tiny" / name
    folder.mkdir(parents=True)
    folder.chmod(0o555)
    try:
        result = CliRunner().invoke(app, ["train", str(config_file)])
    finally:
        folder.chmod(0o755)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith(f"hvae: {tmp_path / 'tiny'}: cannot write the run folder: ")
