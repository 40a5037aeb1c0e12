"""Endless batches from a source, where the position in the order is the whole state."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from hvae.data.sampler import image_order, random_bits
from hvae.data.source import ImageSource, SupportsTake
from hvae.data.workers import PREFETCH, read_in_workers
from hvae.errors import UserError

Indices = NDArray[np.int64]  # (B,)
IndexedImages = tuple[Tensor, Tensor]  # int64 (B,) and uint8 (B, C, H, W)


class Batch(NamedTuple):
    """Consecutive images of the overall order.

    Attributes:
        images: uint8 (B, C, H, W).
        labels: int64 (B,), or None where the source has none.
        position: place of the first image in the overall order; the next batch starts B later.
        conditions: what else the source knows of the images (B, ...), or None.
    """

    images: Tensor
    labels: Tensor | None
    position: int
    conditions: Tensor | None = None


class Loader:
    """Shuffled batches of a source, without end.

    A batch is a function of (source, batch, seed, flip, position) alone: neither the number of
    workers nor what was read before changes it, and no global random state is read or advanced.
    Batches are always full; one may straddle two epochs, and hold an image twice where the set is
    smaller than the batch.

    Args:
        source: the images.
        batch: images per batch.
        seed: decides order and mirroring.
        flip: mirror each image left to right with probability one half, anew in every epoch.
        workers: processes that decode; 0 decodes in this one. Sources that can be indexed directly
            (`SupportsTake`) are, whatever the number.
        prefetch: batches that each worker reads ahead.

    Raises:
        UserError: if the source is empty.
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        batch: int,
        seed: int,
        flip: bool = False,
        workers: int = 0,
        prefetch: int = PREFETCH,
    ) -> None:
        if len(source) == 0:
            raise UserError(f"{source.name} ({source.split}) has no images to load")
        if batch < 1 or workers < 0:
            raise ValueError(f"wanted batch >= 1 and workers >= 0, got {batch} and {workers}")
        self.source = source
        self.batch = batch
        self.seed = seed
        self.flip = flip
        self.workers = workers
        self.prefetch = prefetch

    def batches(self, position: int) -> Iterator[Batch]:
        """Yields batches from a position on, without end.

        Args:
            position: number of images already consumed, at least 0; any value, not only multiples
                of the batch size.

        Raises:
            UserError: naming the file, at the batch that holds an unreadable one.
            WorkerLostError: at a batch that a killed worker owed.
        """
        if position < 0:
            raise ValueError(f"wanted a position >= 0, got {position}")
        # Workers start here, in the caller's thread: processes are not forked by a thread.
        return self._batches(position, self._read(position))

    def _batches(self, position: int, items: Iterator[IndexedImages]) -> Iterator[Batch]:
        positions = itertools.count(position, self.batch)
        for start, (indices, images) in zip(positions, items, strict=False):
            labels = None if self.source.labels is None else self.source.labels[indices]
            given = self.source.conditions
            conditions = None if given is None else given[indices]
            if self.flip:
                self._mirror(images, start)
                if conditions is not None and conditions.ndim > 2:  # images, not vectors
                    self._mirror(conditions, start)
            yield Batch(images, labels, start, conditions)

    def _read(self, position: int) -> Iterator[IndexedImages]:
        order = _Order(self.seed, position, self.batch, len(self.source))
        if isinstance(self.source, SupportsTake):
            return _taken(self.source, order)
        return _raised(read_in_workers(_Rows(self.source), order, self.workers, self.prefetch))

    def _mirror(self, images: Tensor, position: int) -> None:
        """Flips, in place, the images whose position says so."""
        bits = random_bits(self.seed, np.arange(position, position + len(images)), "flip")
        chosen = (bits & np.uint64(1)).astype(bool)
        # NumPy, because torch wakes its thread pool even for this little.
        pixels = images.numpy()
        pixels[chosen] = pixels[chosen, ..., ::-1]


class _Order(Iterable[Indices]):
    """The indices of batch after batch, from a position on."""

    def __init__(self, seed: int, position: int, batch: int, n: int) -> None:
        self.seed, self.position, self.batch, self.n = seed, position, batch, n

    def __iter__(self) -> Iterator[Indices]:
        for start in itertools.count(self.position, self.batch):
            yield image_order(self.seed, np.arange(start, start + self.batch), self.n)


def _taken(source: SupportsTake, order: _Order) -> Iterator[IndexedImages]:
    for indices in order:
        yield torch.from_numpy(indices), source.take(indices)


def _raised(items: Iterator[IndexedImages | UserError]) -> Iterator[IndexedImages]:
    for item in items:
        if isinstance(item, UserError):
            raise item
        yield item


class _Rows(Dataset[IndexedImages | UserError]):
    """A source read batch by batch: an item is (indices, images) of one array of indices.

    An unreadable file comes back as a value: re-raised by DataLoader, its message would be a
    worker's traceback.
    """

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def __getitem__(self, indices: Indices) -> IndexedImages | UserError:
        try:
            # NumPy, because torch.stack wakes its thread pool, which costs more than the copy.
            images = np.stack([self.source[i].numpy() for i in indices.tolist()])
        except UserError as error:
            return error
        return torch.from_numpy(indices), torch.from_numpy(images)
