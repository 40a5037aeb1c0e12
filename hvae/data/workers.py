"""Processes that read images beside the one that needs them, and what happens if one is lost."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from hvae.errors import WorkerLostError

Item = TypeVar("Item")

# Items that a worker holds ready. Measured with benchmarks/bench_loader.py --prefetch: more than
# two gains nothing, since every item is a whole batch, and costs memory.
PREFETCH = 2
MOST_WORKERS = 16


def usable_cores() -> int:
    """The cores this process may run on, which a container or a batch system may have limited."""
    return len(os.sched_getaffinity(0))


def worker_count(asked: int | Literal["auto"], device: torch.device) -> int:
    """The processes that read images for one training process.

    `auto` is none on a CPU, where training itself takes the cores and the prefetching thread is
    enough, and beside a GPU this process's share of the cores, 16 at most.
    """
    if asked != "auto":
        return asked
    if device.type == "cpu":
        return 0
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
    return max(1, min(MOST_WORKERS, usable_cores() // processes))


def read_in_workers(
    dataset: Dataset[Item], order: Iterable[object], workers: int, prefetch: int = PREFETCH
) -> Iterator[Item]:
    """Yields `dataset[key]` for every key of an order, in that order, read by worker processes.

    The workers start at the call, not at the first item, and end with the iterator; they notice
    within seconds if this process is killed.

    Args:
        dataset: what is read; forked workers share its memory.
        order: the keys.
        workers: number of processes; 0 reads in this one, when an item is asked for.
        prefetch: items that each worker reads ahead.

    Raises:
        WorkerLostError: at the item that a killed worker owed.
    """
    loader = DataLoader(
        dataset,
        sampler=order,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        collate_fn=_as_it_is,
        worker_init_fn=_ignore_interrupts,
        # Its own, because DataLoader would draw a seed from the global generator.
        generator=torch.Generator(),
    )
    with _child_handler_kept():
        items = iter(loader)
    return _watched(items)


def _watched(items: Iterator[Item]) -> Iterator[Item]:
    try:
        yield from items
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise WorkerLostError(
            "a process that reads images was killed, as a rule by the system for lack of memory "
            "(or of shared memory, /dev/shm); use fewer workers or a smaller batch, and run the "
            f"same command again to go on ({error})"
        ) from None


@contextmanager
def _child_handler_kept() -> Iterator[None]:
    """Keeps DataLoader from raising the loss of a worker wherever this process happens to be.

    Its handler of SIGCHLD would raise in the middle of a step or of a checkpoint. Without it the
    loss is noticed where it belongs, at an item that does not come, within five seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # where DataLoader sets no handler
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _as_it_is(item: Item) -> Item:
    return item


def _ignore_interrupts(_worker: int) -> None:
    """Leaves Ctrl-C, which reaches every process of a terminal, to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
