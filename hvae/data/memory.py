"""A set whose pixels are one array, in memory or mapped from a file."""

from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvae.data.config import DataConfig
from hvae.data.identity import Identity, pixel_identity
from hvae.data.parallel import parallel_map
from hvae.data.resize import fit

CHUNK_IMAGES = 1024


class Pixels(Protocol):
    """What is indexed like an array uint8 (N, C, H, W): by a row or by an array of them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


class ArraySource:
    """An `ImageSource` over one uint8 array, which the loader indexes directly.

    Args:
        name: what results are reported under.
        split: "train" or "test".
        images: uint8 (N, C, H, W), any strides, possibly memory-mapped.
        rows: the images of this split, int64 (n,), None for all. A split by rows leaves a
            memory-mapped file where it is.
        labels: integers (N,), or None.
        classes: the name of each label, or None.
        conditions: what else is known of every image, (N, ...): vectors of float32, or uint8 images
            (C, H, W). None: nothing.
        identity: None hashes the pixels when it is asked for.
    """

    def __init__(
        self,
        name: str,
        split: str,
        images: Pixels,
        *,
        rows: NDArray[np.int64] | None = None,
        labels: NDArray[np.integer] | None = None,
        classes: tuple[str, ...] | None = None,
        conditions: NDArray[Any] | None = None,
        identity: Identity | None = None,
    ) -> None:
        self.name = name
        self.split = split
        self.classes = classes
        self._given_identity = identity
        self._images = images
        self._rows = np.arange(len(images)) if rows is None else rows
        self.labels = (
            None if labels is None else torch.from_numpy(labels.astype(np.int64)[self._rows])
        )
        self.conditions = None if conditions is None else torch.from_numpy(conditions[self._rows])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self._images.shape
        return channels, height, width

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.take(np.array([index]))[0]

    def take(self, indices: NDArray[np.int64]) -> Tensor:
        """The images at `indices` (B,), as uint8 (B, C, H, W)."""
        return torch.from_numpy(np.ascontiguousarray(self._images[self._rows[indices]]))

    def identity(self) -> Identity:
        """The count and the hash of all pixels; computed once."""
        return self._given_identity or self._identity

    @cached_property
    def _identity(self) -> Identity:
        starts = range(0, len(self), CHUNK_IMAGES)
        chunks = (self._images[self._rows[i : i + CHUNK_IMAGES]] for i in starts)
        return pixel_identity(chunks, self.shape)

    def fitted(self, config: DataConfig) -> "ArraySource":
        """This set at the size and channel count the configuration asks for.

        Converting happens here, once and in memory, never in the training loop.
        """
        channels, height, width = self.shape
        height, width = config.height_width or (height, width)
        wanted = (config.channels or channels, height, width)
        if wanted == self.shape:
            return self
        images = np.empty((len(self), *wanted), dtype=np.uint8)
        fitted = parallel_map(lambda row: fit(self._images[row], wanted), self._rows.tolist())
        for index, image in enumerate(fitted):
            images[index] = image
        labels = None if self.labels is None else self.labels.numpy()
        conditions = None if self.conditions is None else self.conditions.numpy()
        return ArraySource(
            self.name,
            self.split,
            images,
            labels=labels,
            classes=self.classes,
            conditions=conditions,
        )
