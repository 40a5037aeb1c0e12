"""Batches fetched in a thread while the step before them runs, and brought to the device."""

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from hvae.data.loader import Batch

DEPTH = 1  # batches that wait in the queue; the thread holds one more


class Prefetcher:
    """Iterates over batches on a device, the next ones being read meanwhile.

    The thread waits for worker processes or copies from a memory map, and for a GPU puts what it
    got into pinned memory, from which the copy to the device runs beside the host. Batches that
    were fetched and not used are forgotten: what comes next depends on the position alone.

    Used as a context, which ends the thread and the iterator it reads from:

        with Prefetcher(loader.batches(position), device) as batches:
            for batch in batches: ...

    Args:
        batches: where batches come from; its exceptions are raised at their place in the order.
        device: where the tensors of a batch go.

    Attributes:
        waited: seconds that the latest batch kept its reader waiting.
    """

    def __init__(self, batches: Iterator[Batch], device: torch.device) -> None:
        self.waited = 0.0
        self._batches = batches
        self._device = device
        self._gpu: int | None = None
        if device.type == "cuda":
            self._gpu = torch.cuda.current_device() if device.index is None else device.index
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=DEPTH)
        self._closed = threading.Event()
        # A daemon: a file system that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._fetch, name="hvae-prefetch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        while self._thread.is_alive():
            self._discard()
            self._thread.join(timeout=0.05)
        self._discard()
        # Ends worker processes now, not when the garbage is collected.
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch, on the device; raises what reading it raised."""
        began = time.perf_counter()
        item = self._ready.get()
        self.waited = time.perf_counter() - began
        if isinstance(item, BaseException):
            self._ready.put(item)  # the thread is over: who asks again is told the same
            raise item
        return item._replace(
            images=item.images.to(self._device, non_blocking=True),
            labels=self._moved(item.labels),
            conditions=self._moved(item.conditions),
        )

    def _moved(self, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(self._device, non_blocking=True)

    def _fetch(self) -> None:
        """The thread: reads until the context ends or an exception has been handed over."""
        try:
            if self._gpu is not None:
                # A thread starts on GPU 0, where another rank may be training.
                torch.cuda.set_device(self._gpu)
            for batch in self._batches:
                self._ready.put(batch if self._gpu is None else _pinned(batch))
                if self._closed.is_set():
                    return
            self._ready.put(StopIteration())
        except BaseException as error:  # all of them belong to the reader
            self._ready.put(error)

    def _discard(self) -> None:
        with suppress(queue.Empty):
            self._ready.get_nowait()


def _pinned(batch: Batch) -> Batch:
    labels, conditions = batch.labels, batch.conditions
    return batch._replace(
        images=batch.images.pin_memory(),
        labels=None if labels is None else labels.pin_memory(),
        conditions=None if conditions is None else conditions.pin_memory(),
    )
