"""Processes that read images beside the one that needs them, and what happens if one is lost."""

import ctypes
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from hvae.errors import UserError, WorkerLostError

Item = TypeVar("Item")

# Items that a worker holds ready: one to be taken while it works on the next. More only evens out
# stalls longer than a batch, and an item is a whole batch of memory.
# benchmarks/bench_loader.py --prefetch compares.
PREFETCH = 2
MOST_WORKERS = 16

PR_SET_PDEATHSIG = 1  # of linux/prctl.h


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
    dataset: Dataset[Item | UserError],
    order: Iterable[object],
    workers: int,
    prefetch: int = PREFETCH,
) -> Iterator[Item]:
    """Yields `dataset[key]` for every key of an order, in that order, read by worker processes.

    The workers start at the call, not at the first item, and end with the iterator, or at once if
    this process is killed.

    Args:
        dataset: what is read; forked workers share its memory. An error of the user's comes back
            as a value: re-raised by DataLoader, its message would be a worker's traceback.
        order: the keys.
        workers: number of processes; 0 reads in this one, when an item is asked for.
        prefetch: items that each worker reads ahead.

    Raises:
        UserError: at the item that is one.
        WorkerLostError: at the item that a killed worker owed.
    """
    loader = DataLoader(
        dataset,
        sampler=order,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        collate_fn=_as_it_is,
        worker_init_fn=_settle,
        # Its own, because DataLoader would draw a seed from the global generator.
        generator=torch.Generator(),
    )
    with _child_handler_kept():
        items = iter(loader)
    return _raised(_watched(items) if workers else items)


def _raised(items: Iterator[Item | UserError]) -> Iterator[Item]:
    for item in items:
        if isinstance(item, UserError):
            raise item
        yield item


def _watched(items: Iterator[Item]) -> Iterator[Item]:
    try:
        yield from items
    except (RuntimeError, OSError, EOFError) as error:
        if not _is_loss(error):
            raise
        raise WorkerLostError(
            "a process that reads images was killed, as a rule by the system for lack of memory "
            "(or of shared memory, /dev/shm); use fewer workers or a smaller batch, and run the "
            f"same command again to go on ({str(error) or type(error).__name__})"
        ) from None


def _is_loss(error: Exception) -> bool:
    """Whether an error says that a worker is gone, and is none that a worker met."""
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker")
    # A tensor was announced, and the worker that had to hand over its memory no longer answers.
    gone = isinstance(error, ConnectionError | EOFError | FileNotFoundError)
    return gone and not str(error).startswith("Caught ")


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


def _settle(_worker: int) -> None:
    """Leaves Ctrl-C, which reaches every process of a terminal, to the main process; ends with it.

    DataLoader's own workers notice a killed parent only seconds later, and until then hold what
    they inherited from it, such as the lock of its run folder.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
