"""Prefetching changes neither the batches nor their errors, and leaves nothing running."""

import itertools
import threading
from collections.abc import Iterator

import pytest
import torch

from hvae.data import Batch, Loader, Prefetcher
from hvae.data.generated import ShapesSource
from hvae.errors import UserError

CPU = torch.device("cpu")


def loader(workers: int = 0) -> Loader:
    source = ShapesSource("train", (3, 6, 6), count=10)
    return Loader(source, batch=4, seed=1, flip=True, workers=workers)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "hvae-prefetch"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("position", [0, 7])
def test_batches_are_those_of_the_loader(workers: int, position: int) -> None:
    wanted = list(itertools.islice(loader().batches(position), 5))
    with Prefetcher(loader(workers).batches(position), CPU) as batches:
        found = list(itertools.islice(batches, 5))
    for one, other in zip(wanted, found, strict=True):
        assert one.position == other.position
        assert torch.equal(one.images, other.images)
        assert one.labels is not None
        assert torch.equal(one.labels, other.labels)


def test_the_next_batch_is_read_while_the_last_one_is_used() -> None:
    read_third = threading.Event()

    def source() -> Iterator[Batch]:
        for batch in itertools.islice(loader().batches(0), 3):
            if batch.position == 8:
                read_third.set()
            yield batch

    with Prefetcher(source(), CPU) as batches:
        assert next(batches).position == 0
        assert read_third.wait(timeout=60)
        assert [batch.position for batch in batches] == [4, 8]
        with pytest.raises(StopIteration):
            next(batches)


def test_waiting_is_measured() -> None:
    release = threading.Event()

    def source() -> Iterator[Batch]:
        yield from itertools.islice(loader().batches(0), 1)
        release.wait(timeout=60)
        yield from itertools.islice(loader().batches(4), 1)

    with Prefetcher(source(), CPU) as batches:
        next(batches)
        threading.Timer(0.2, release.set).start()
        next(batches)
        assert 0.1 < batches.waited < 60


def test_errors_come_at_their_place_and_stay() -> None:
    def source() -> Iterator[Batch]:
        yield from itertools.islice(loader().batches(0), 2)
        raise UserError("cannot read the image x.png")

    with Prefetcher(source(), CPU) as batches:
        assert [next(batches).position for _ in range(2)] == [0, 4]
        for _ in range(2):
            with pytest.raises(UserError, match=r"x\.png"):
                next(batches)


@pytest.mark.parametrize("used", [0, 1, 3])
def test_leaving_ends_the_thread_and_what_it_reads_from(used: int) -> None:
    closed = []

    def source() -> Iterator[Batch]:
        try:
            yield from loader().batches(0)
        finally:
            closed.append(True)

    with Prefetcher(source(), CPU) as batches:
        for _ in range(used):
            next(batches)
        assert threads()
    assert not threads()
    assert closed == [True]


@pytest.mark.gpu
def test_batches_arrive_on_the_gpu_from_pinned_memory() -> None:
    device = torch.device("cuda")
    wanted = list(itertools.islice(loader().batches(0), 4))
    with Prefetcher(loader(2).batches(0), device) as batches:
        for one, other in zip(wanted, batches, strict=False):
            assert other.images.device.type == "cuda"
            assert torch.equal(one.images, other.images.cpu())
