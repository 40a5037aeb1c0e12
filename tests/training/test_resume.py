"""A run that is killed again and again ends with the bits of one that is not.

Runs are processes of their own: a server that has imported the package once forks each of them, so
that ten kills take seconds.
"""

import json
import multiprocessing
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hvae import checkpoint
from hvae.cli.main import app
from hvae.training import Config, fit

TIMEOUT = 300.0  # seconds that a process may take, on a busy machine
MEASURED = {"seconds", "images_per_second", "data_wait", "memory_mib"}  # what no two runs share


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hvae.training", "torch._dynamo"])  # optimisers import it
    return context


def rows(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in MEASURED} for line in lines]


def contents(run: Path) -> dict[str, bytes]:
    """The bytes of everything a run ends with that does not hold measured times."""
    folder = checkpoint.latest_checkpoint(run)
    assert folder is not None
    files = [*folder.glob("*.safetensors"), *(run / "samples").iterdir()]
    assert len(files) >= 5
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def wait_for_rows(process: BaseProcess, metrics: Path, count: int) -> None:
    """Returns when the log has grown to `count` lines, or the process has ended."""
    deadline = time.monotonic() + TIMEOUT
    while process.is_alive() and time.monotonic() < deadline:
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.001)


def train_with_kills(
    server: ForkServerContext | SpawnContext,
    config: Config,
    run: Path,
    chance: random.Random,
    kills: int,
) -> int:
    """Runs to the end through about `kills` kills at random moments; returns how many hit."""
    hits = 0
    while True:
        process = server.Process(target=fit, args=(config,), daemon=True)
        process.start()
        if hits < kills:
            metrics = run / "metrics.jsonl"
            done = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
            wait_for_rows(process, metrics, done + chance.randint(1, 3))
            time.sleep(chance.uniform(0, 0.02))
            process.kill()
        process.join(TIMEOUT)
        assert not process.is_alive(), f"the run takes more than {TIMEOUT} s"
        if process.exitcode == 0:
            return hits
        assert process.exitcode == -signal.SIGKILL, "the run failed by itself"
        hits += 1


@pytest.mark.parametrize(
    ("seed", "kills"),
    [(0, 3), *(pytest.param(seed, 12, marks=pytest.mark.slow) for seed in range(1, 5))],
)
def test_a_killed_run_ends_with_the_same_bits(
    server: ForkServerContext,
    tiny: Callable[..., Config],
    tmp_path: Path,
    seed: int,
    kills: int,
) -> None:
    settings = ("train.images=118", "train.log_every=4", "train.eval_every=20", "data.flip=true")
    chance = random.Random(seed)
    whole, run = tmp_path / "whole", tmp_path / "killed"
    train_with_kills(server, tiny(*settings, "name=whole"), whole, chance, kills=0)
    hits = train_with_kills(server, tiny(*settings, "name=killed"), run, chance, kills)

    assert hits >= 2, "the run was over before it could be killed"
    assert rows(run) == rows(whole)
    assert contents(run) == contents(whole)
    assert not list(run.rglob(".step-*"))


DIVERGES = (  # for real, and again, until the learning rate is low enough
    "train.lr=1.0", "train.guard.max_above_uniform=20", "train.guard.max_rollbacks=9",
    "train.keep_last=1", "train.objective.spectral=0.1",
)  # fmt: skip


@pytest.mark.parametrize(
    ("seed", "kills"), [(0, 3), *(pytest.param(s, 12, marks=pytest.mark.slow) for s in (1, 2))]
)
def test_a_run_that_diverges_ends_with_the_same_bits_when_it_is_killed(
    server: ForkServerContext,
    tiny: Callable[..., Config],
    tmp_path: Path,
    seed: int,
    kills: int,
) -> None:
    settings = ("train.images=158", "train.log_every=4", *DIVERGES)
    chance = random.Random(seed)
    whole, run = tmp_path / "whole", tmp_path / "killed"
    train_with_kills(server, tiny(*settings, "name=whole"), whole, chance, kills=0)
    hits = train_with_kills(server, tiny(*settings, "name=killed"), run, chance, kills)

    assert hits >= 2, "the run was over before it could be killed"
    alarms = [row for row in rows(whole) if row["kind"] == "alarm"]
    assert len(alarms) >= 2
    assert rows(run) == rows(whole)
    assert contents(run) == contents(whole)


def test_sigterm_saves_and_the_same_command_goes_on(config_file: Path, tmp_path: Path) -> None:
    """By the command line: exit code 75, then 0."""
    arguments = ["train", str(config_file), "train.images=400"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hvae", *arguments], stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "tiny" / "metrics.jsonl"
    deadline = time.monotonic() + TIMEOUT
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 75, errors
    assert "run the same command again to go on" in errors
    state = checkpoint.read_state(checkpoint.latest_checkpoint(tmp_path / "tiny"))
    assert 0 < state["images"] < 400

    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0, again.output
    assert f"at {state['images']:,} images" in again.stderr
    assert "bits/dim" in again.stdout


@pytest.mark.slow
def test_threads_do_not_break_the_resume(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums over threads are in a fixed order: the bits depend on their number alone."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # or threads spin while a busy core is away
    context = multiprocessing.get_context("spawn")
    settings = ("model.width=48", "data.batch=16", "train.images=158", "train.checkpoint_every=32")
    results = []
    for name, kills in (("whole", 0), ("killed", 3)):
        run = tmp_path / name
        config = tiny(*settings, f"name={name}")
        train_with_kills(context, config, run, random.Random(9), kills)
        results.append((rows(run), contents(run)))
    assert results[0] == results[1]
