"""Worker processes keep the order, and one that is killed ends in one clear error."""

import itertools
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from hvae.data.workers import read_in_workers, usable_cores, worker_count
from hvae.errors import WorkerLostError


class Squares(Dataset[int]):
    def __getitem__(self, key: int) -> int:
        return key * key


class Deadly(Dataset[int]):
    """Ends the process that reads one key, as the system does when memory runs out."""

    def __getitem__(self, key: int) -> int:
        if key == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return key


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_items_come_in_order(workers: int) -> None:
    items = read_in_workers(Squares(), itertools.count(4), workers)
    assert list(itertools.islice(items, 9)) == [n * n for n in range(4, 13)]


def test_a_killed_worker_is_one_clear_error_at_its_item() -> None:
    items = read_in_workers(Deadly(), range(20), 2)
    seen: list[int] = []
    with pytest.raises(WorkerLostError, match=r"lack of memory.*fewer workers") as caught:
        seen.extend(items)
    assert seen == list(range(len(seen)))
    assert len(seen) <= 5
    assert caught.value.exit_code == 1
    assert caught.value.__cause__ is None


def test_the_loss_of_a_worker_interrupts_nothing_else() -> None:
    """DataLoader alone would raise from a signal handler, in the middle of whatever runs."""
    before = signal.getsignal(signal.SIGCHLD)
    items = read_in_workers(Deadly(), range(20), 2)
    assert signal.getsignal(signal.SIGCHLD) == before
    assert next(items) == 0
    del items


class Sleepers(Dataset[int]):
    """Tells which process reads, then reads for ten minutes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, key: int) -> int:
        (self.folder / str(os.getpid())).touch()
        time.sleep(600)
        return key


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    parent = multiprocessing.get_context("fork").Process(
        target=lambda: next(read_in_workers(Sleepers(tmp_path), range(4), 2))
    )
    parent.start()
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.01)
    parent.kill()
    parent.join()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    deadline = time.monotonic() + 30
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_running, workers))


def is_running(process: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_errors_of_the_work_itself_keep_their_kind() -> None:
    class Broken(Dataset[int]):
        def __getitem__(self, key: int) -> int:
            raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours") as caught:
        next(read_in_workers(Broken(), range(3), 1))
    assert not isinstance(caught.value, WorkerLostError)


def test_auto_shares_the_cores_beside_a_gpu_and_takes_none_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(24)))
    assert usable_cores() == 24
    assert worker_count("auto", cpu) == 0
    assert worker_count("auto", gpu) == 16
    assert worker_count(3, cpu) == worker_count(3, gpu) == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert worker_count("auto", gpu) == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert worker_count("auto", gpu) == 1
