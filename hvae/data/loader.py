"""Batches from a source, where the position in the order is the whole state."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from hvae.data.sampler import block, image_order, random_bits
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
        position: place of the first image in the overall order.
        conditions: what else the source knows of the images (B, ...), or None.
        total: images of the batch over all processes; B where there is one.
    """

    images: Tensor
    labels: Tensor | None
    position: int
    conditions: Tensor | None
    total: int


class Loader:
    """Shuffled batches of a source, without end or up to one.

    A batch is a function of (source, batch, seed, flip, position) alone: neither the number of
    workers nor what was read before changes it, and no global random state is read or advanced.
    Batches are always full; one may straddle two epochs, and hold an image twice where the set is
    smaller than the batch. Of several processes each reads its `block` of every batch: together
    they see what one alone would.

    Args:
        source: the images.
        batch: images per batch, over all processes.
        seed: decides order and mirroring.
        flip: mirror each image left to right with probability one half, anew in every epoch.
        workers: processes that decode; 0 decodes in this one. Sources that can be indexed directly
            (`SupportsTake`) are, whatever the number.
        prefetch: batches that each worker reads ahead.
        rank: which of the processes that train this is.
        ranks: how many there are.

    Raises:
        UserError: if the source is empty, or a process would never have an image.
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
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if len(source) == 0:
            raise UserError(f"{source.name} ({source.split}) has no images to load")
        if batch < 1 or workers < 0:
            raise ValueError(f"wanted batch >= 1 and workers >= 0, got {batch} and {workers}")
        if batch < ranks:
            raise UserError(
                f"data.batch is {batch}, but {ranks} processes train: each needs an image of every "
                "batch; raise data.batch or start fewer"
            )
        self.source = source
        self.batch = batch
        self.seed = seed
        self.flip = flip
        self.workers = workers
        self.prefetch = prefetch
        self.rank, self.ranks = rank, ranks

    def batches(self, position: int, end: int | None = None) -> Iterator[Batch]:
        """Yields batches from a position on.

        Args:
            position: number of images already consumed, at least 0; any value, not only multiples
                of the batch size.
            end: position to stop at; the last batch is cut there, and where it has fewer images
                than there are processes, some get none. None: never.

        Raises:
            UserError: naming the file, at the batch that holds an unreadable one.
            WorkerLostError: at a batch that a killed worker owed.
        """
        if position < 0:
            raise ValueError(f"wanted a position >= 0, got {position}")
        order = _Order(self, position, end)
        # Workers start here, in the caller's thread: processes are not forked by a thread.
        return self._batches(order, self._read(order))

    def _batches(self, order: "_Order", items: Iterator[IndexedImages]) -> Iterator[Batch]:
        for (places, total), (indices, images) in zip(order.spans(), items, strict=False):
            start = places.start
            labels = None if self.source.labels is None else self.source.labels[indices]
            given = self.source.conditions
            conditions = None if given is None else given[indices]
            if self.flip:
                self._mirror(images, start)
                if conditions is not None and conditions.ndim > 2:  # images, not vectors
                    self._mirror(conditions, start)
            yield Batch(images, labels, start, conditions, total)

    def _read(self, order: "_Order") -> Iterator[IndexedImages]:
        if isinstance(self.source, SupportsTake):
            return _taken(self.source, order)
        return read_in_workers(_Rows(self.source), order, self.workers, self.prefetch)

    def _mirror(self, images: Tensor, position: int) -> None:
        """Flips, in place, the images whose position says so."""
        bits = random_bits(self.seed, np.arange(position, position + len(images)), "flip")
        chosen = (bits & np.uint64(1)).astype(bool)
        # NumPy, because torch wakes its thread pool even for this little.
        pixels = images.numpy()
        pixels[chosen] = pixels[chosen, ..., ::-1]


class _Order(Iterable[Indices]):
    """The indices of this process's part of batch after batch, from a position on to an end."""

    def __init__(self, loader: Loader, position: int, end: int | None) -> None:
        self.seed, self.n = loader.seed, len(loader.source)
        self.batch, self.rank, self.ranks = loader.batch, loader.rank, loader.ranks
        self.position, self.end = position, end

    def spans(self) -> Iterator[tuple[range, int]]:
        """Yields the positions of each part, and how many images its batch has in all."""
        for start in itertools.count(self.position, self.batch):
            left = self.batch if self.end is None else min(self.batch, self.end - start)
            if left <= 0:
                return
            own = block(left, self.rank, self.ranks)
            yield range(start + own.start, start + own.stop), left

    def __iter__(self) -> Iterator[Indices]:
        for places, _ in self.spans():
            yield image_order(self.seed, np.arange(places.start, places.stop), self.n)


def _taken(source: SupportsTake, order: _Order) -> Iterator[IndexedImages]:
    for indices in order:
        yield torch.from_numpy(indices), source.take(indices)


class _Rows(Dataset[IndexedImages | UserError]):
    """A source read batch by batch: an item is (indices, images) of one array of indices."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def __getitem__(self, indices: Indices) -> IndexedImages | UserError:
        try:
            # NumPy, because torch.stack wakes its thread pool, which costs more than the copy.
            images = np.empty((len(indices), *self.source.shape), dtype=np.uint8)
            for row, index in zip(images, indices.tolist(), strict=True):
                row[...] = self.source[index].numpy()
        except UserError as error:
            return error
        return torch.from_numpy(indices), torch.from_numpy(images)
