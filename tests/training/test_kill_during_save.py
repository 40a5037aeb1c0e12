"""SIGKILL at random moments of saves never leaves a run that cannot go on, nor changes a bit.

Each round is a process that kills itself from a thread: in one of its saves, drawn by a seed, after
a share of the time that a save takes here, so that a busy machine is hit in the same places.
"""

import math
import multiprocessing
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from hvae import checkpoint
from hvae.training import Config, fit
from tests.checkpoint.crash import Crash, crash_at
from tests.training.test_resume import TIMEOUT, contents, rows

STEPS_A_ROUND = 3
EVERY = ("train.checkpoint_every=4", "train.eval_every=8", "train.log_every=4")
SETTINGS = (*EVERY, "train.keep_best=true", "train.keep_last=1", "train.ema=0.9")


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hvae.training", "torch._dynamo"])
    return context


def train_and_die(config: Config, seed: int) -> None:
    """Trains; in one of the first saves after the first, a thread kills this process."""
    chance = random.Random(seed)
    doomed, share = chance.randint(2, STEPS_A_ROUND + 1), chance.uniform(0, 1)
    save, seconds = checkpoint.save, math.nan
    count = 0

    def die() -> None:
        time.sleep(share * seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    def save_and_die(*args: Any, **options: Any) -> Path:
        nonlocal count, seconds
        count += 1
        if count == doomed:
            threading.Thread(target=die).start()
        began = time.perf_counter()
        folder = save(*args, **options)
        seconds = time.perf_counter() - began
        return folder

    checkpoint.save = save_and_die
    fit(config)


def run_to_the_end(server: ForkServerContext, config: Config) -> None:
    process = server.Process(target=fit, args=(config,), daemon=True)
    process.start()
    process.join(TIMEOUT)
    assert process.exitcode == 0


@pytest.mark.parametrize("rounds", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_run_killed_in_its_saves_goes_on_and_ends_with_the_same_bits(
    server: ForkServerContext, tiny: Callable[..., Config], tmp_path: Path, rounds: int
) -> None:
    images = 4 * STEPS_A_ROUND * rounds + 14
    config = tiny(*SETTINGS, f"train.images={images}")
    run, in_saves = tmp_path / "tiny", 0
    for seed in range(rounds):
        process = server.Process(target=train_and_die, args=(config, seed), daemon=True)
        process.start()
        process.join(TIMEOUT)
        assert process.exitcode == -signal.SIGKILL, f"round {seed}"
        with warnings.catch_warnings(action="error"):  # a kill damages nothing
            found = checkpoint.newest_complete(run)
        assert found.checkpoint is not None, f"round {seed}"
        assert not found.damaged, f"round {seed}: {found}"
        in_saves += bool(list(run.rglob(".*.tmp")) or list(run.rglob(".*.old")))
    run_to_the_end(server, config)
    run_to_the_end(server, tiny(*SETTINGS, f"train.images={images}", "name=whole"))
    print(f"{rounds} kills, {in_saves} of them left a half written file or folder behind")
    assert in_saves > 0
    assert rows(run) == rows(tmp_path / "whole")
    assert contents(run) == contents(tmp_path / "whole")
    assert (run / "best").read_text() == (tmp_path / "whole" / "best").read_text()
    assert not [path for pattern in (".*.tmp", ".*.old") for path in run.rglob(pattern)]


@pytest.mark.parametrize("every", [23, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_before_any_file_operation_of_a_run_changes_no_bit(
    tiny: Callable[..., Config], tmp_path: Path, every: int
) -> None:
    """Every operation in turn: of the log, the record, all saves, the pointers and what goes."""
    settings = ("train.keep_best=true", "train.keep_last=1", "train.images=22", "eval.images=2")
    whole = tmp_path / "whole"
    with crash_at(0) as count:
        fit(tiny(*settings, "name=whole"))
        operations = count()
    assert operations > 60
    for kill in range(1, operations + 1, every):
        name = f"killed-{kill}"
        with pytest.raises(Crash), crash_at(kill):
            fit(tiny(*settings, f"name={name}"))
        with warnings.catch_warnings():
            # Between the first checkpoint's rename and `latest`, the latter is missing.
            warnings.filterwarnings("ignore", "[^;]*latest: it is missing")
            fit(tiny(*settings, f"name={name}"))
        assert rows(tmp_path / name) == rows(whole), f"operation {kill}"
        assert contents(tmp_path / name) == contents(whole), f"operation {kill}"
        assert (tmp_path / name / "best").read_text() == (whole / "best").read_text()
