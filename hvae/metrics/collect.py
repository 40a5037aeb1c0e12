"""One pass over images that takes every measurement of each.

Convolutions round differently in batches of different sizes. The pass therefore cuts images into
chunks of one fixed size, at multiples of it, whatever number is read at a time and however many
processes share the work: the rows are the same, bit for bit, on one machine and thread count.
"""

import time
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from hvae.metrics.features import CHUNK

# Rows (n, d) of images `first` to `first + n - 1`, uint8 (C, H, W) each; called with both.
Measure = Callable[[int, list[Tensor]], Tensor]


class Images(Protocol):
    """Images by their place, read or computed when they are asked for."""

    def __len__(self) -> int: ...

    def take(self, start: int, stop: int, /) -> list[Tensor]:
        """Images `start` to `stop - 1`, uint8 (C, H, W) each; sizes may differ."""
        ...

    def file(self, index: int, /) -> str:
        """What names an image in a message."""
        ...


def part_of(count: int, rank: int, ranks: int) -> range:
    """Which of `count` images are process `rank`'s of `ranks`: whole chunks, in the order of ranks.

    The first process has the most; others may have none.

    >>> [part_of(100, rank, 2) for rank in (0, 1)]
    [range(0, 64), range(64, 100)]
    """
    chunks = -(-count // CHUNK)
    first, last = (-(-chunks * r // ranks) * CHUNK for r in (rank, rank + 1))
    return range(min(first, count), min(last, count))


@torch.no_grad()
def collect(
    measures: Mapping[str, Measure],
    images: Images,
    *,
    part: range | None = None,
    batch: int = 64,
    progress: Callable[[int], None] | None = None,
    seconds: dict[str, float] | None = None,
) -> dict[str, Tensor]:
    """Returns the rows (n, d) of each measure, on the CPU, for the images of a part.

    Args:
        measures: by name; each sees whole chunks, but for the last of all.
        images: what is measured.
        part: contiguous, from `part_of`. None: all.
        batch: images taken at a time, rounded up to whole chunks. Changes no bit of the result.
        progress: called with the images done so far.
        seconds: gains what taking the "images" and measuring their "features" took.
    """
    part = range(len(images)) if part is None else part
    spent = {"images": 0.0, "features": 0.0} if seconds is None else seconds
    rows: dict[str, list[Tensor]] = {name: [] for name in measures}
    step = max(1, -(-batch // CHUNK)) * CHUNK
    for start in range(part.start, part.stop, step):
        began = time.monotonic()
        taken = images.take(start, min(start + step, part.stop))
        spent["images"] += time.monotonic() - began
        began = time.monotonic()
        for first in range(0, len(taken), CHUNK):
            chunk = taken[first : first + CHUNK]
            for name, measure in measures.items():
                rows[name].append(measure(start + first, chunk).cpu())
        spent["features"] += time.monotonic() - began
        if progress is not None:
            progress(start + len(taken) - part.start)
    return {name: torch.cat(found) if found else torch.empty(0) for name, found in rows.items()}
