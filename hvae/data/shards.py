"""The writing of shards: rows read by workers, put into .npy files in order, each whole or not."""

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.format import write_array_header_1_0
from torch import Tensor
from torch.utils.data import Dataset

from hvae.data.decode import ImageError
from hvae.data.folder import FolderSource
from hvae.data.identity import file_sha256
from hvae.data.manifest import Plan, Shard, Skipped
from hvae.data.plan import Sources
from hvae.data.split import Split
from hvae.data.workers import read_in_workers
from hvae.errors import UserError
from hvae.files import replacing

# What a worker hands over at once: large enough to make the exchange cheap, small enough for the
# shared memory of a container, which holds a few of these for every worker.
CHUNK_BYTES = 2**23


class Chunk(NamedTuple):
    """Consecutive rows of one shard: uint8 (n, C, H, W), and what is told of them."""

    images: Tensor
    skipped: list[Skipped]
    source_sha256: list[str]


def read_rows(
    plan: Plan, sources: Sources, shards: list[int], workers: int, *, skip_bad: bool
) -> Iterator[Chunk]:
    """Yields the rows of the given shards in order, no chunk across two of them.

    Raises:
        UserError: naming the file, at a chunk with one that cannot be read, unless it is skipped.
        WorkerLostError: at a chunk that a killed worker owed.
    """
    step = max(1, CHUNK_BYTES // plan.image_bytes)
    chunks = [
        rows[start : start + step]
        for rows in map(plan.shard_rows, shards)
        for start in range(0, len(rows), step)
    ]
    return read_in_workers(_Rows(plan, sources, skip_bad), chunks, workers)


def write_shard(
    file: Path, plan: Plan, number: int, chunks: Iterator[Chunk], advance: Callable[[int], None]
) -> Shard:
    """Writes one shard from the chunks that are next; calls `advance` with its rows so far."""
    shape = (len(plan.shard_rows(number)), *plan.shape)
    skipped: list[Skipped] = []
    hashes: list[str] = []
    digest = hashlib.sha256()
    with replacing(file) as stream:

        def put(data: bytes | memoryview) -> None:
            stream.write(data)
            digest.update(data)

        put(_header(shape))
        done = 0
        while done < shape[0]:
            chunk = next(chunks)
            put(chunk.images.numpy().data)
            skipped += chunk.skipped
            hashes += chunk.source_sha256
            done += len(chunk.images)
            advance(done)
    return Shard(sha256=digest.hexdigest(), skipped=tuple(skipped), source_sha256=tuple(hashes))


def write_conditions(file: Path, splits: list[Tensor]) -> str:
    """Writes the conditions of all rows as one .npy file; returns its sha256 in hexadecimal."""
    with replacing(file) as stream:
        np.save(stream, torch.cat(splits).numpy())
    return file_sha256(file).hex()


class _Rows(Dataset[Chunk | UserError]):
    """Rows of both splits by their number; a file that may not be skipped comes back as a value."""

    def __init__(self, plan: Plan, sources: Sources, skip_bad: bool) -> None:
        self.plan, self.sources, self.skip_bad = plan, sources, skip_bad

    def __getitem__(self, rows: range) -> Chunk | UserError:
        images = np.zeros((len(rows), *self.plan.shape), dtype=np.uint8)
        skipped: list[Skipped] = []
        hashes: list[str] = []
        for image, row in zip(images, rows, strict=True):
            split: Split = "train" if row < self.plan.rows["train"] else "test"
            source, index = self.sources[split], row - self.plan.split_rows(split).start
            try:
                image[...] = source[index].numpy()
            except ImageError as error:
                if not self.skip_bad:
                    return UserError(f"{error}; --skip-bad leaves such files out")
                name = "" if self.plan.names is None else self.plan.names[row]
                skipped.append(Skipped(row=row, name=name, kind=error.kind, reason=error.reason))
            if isinstance(source, FolderSource):
                unread = bool(skipped) and skipped[-1].row == row
                hashes.append("" if unread else file_sha256(source.path(index)).hex())
        return Chunk(torch.from_numpy(images), skipped, hashes)


def _header(shape: tuple[int, ...]) -> bytes:
    """The start of a .npy file of uint8."""
    stream = io.BytesIO()
    write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()
