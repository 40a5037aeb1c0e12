"""A prepared folder as a set of images: shards mapped into memory, read row by row."""

from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from hvae.data.identity import file_sha256
from hvae.data.manifest import CONDITIONS, Manifest, Plan, read_manifest, shard_name
from hvae.data.memory import ArraySource
from hvae.data.split import Split
from hvae.errors import UserError


class Shards:
    """The rows of all shards as one read-only array of shape (N, C, H, W).

    Nothing is read before it is asked for, and the system's cache decides what stays in memory.

    Raises:
        UserError: naming the shard that is missing, cut short, or of another shape.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.shape = (plan.num_rows, *plan.shape)
        self._rows_per_shard = plan.rows_per_shard
        self._shards = [
            _mapped(folder / shard_name(number), (len(plan.shard_rows(number)), *plan.shape))
            for number in range(plan.num_shards)
        ]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | NDArray[np.int64]) -> NDArray[np.uint8]:
        """A view of one row (C, H, W), or a copy of many (B, C, H, W)."""
        if isinstance(rows, int):
            shard, row = divmod(rows, self._rows_per_shard)
            return np.asarray(self._shards[shard][row])
        images = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        for image, row in zip(images, rows.tolist(), strict=True):
            image[...] = self[row]
        return images


def open_prepared(folder: Path, split: Split) -> ArraySource:
    """A split of what `hvae data prepare` made.

    Its pixels, labels and identity are those of the source it was made from, read at the same
    size, so results are comparable between the two.

    Raises:
        UserError: if the folder is not finished, or a file of it is missing or damaged.
    """
    manifest = read_manifest(folder)
    plan = manifest.plan
    shards = Shards(folder, plan)  # a check, before anything is made by what the manifest says
    rows = manifest.kept_rows(split)
    if len(rows) == 0:
        raise UserError(f"{folder} has no {split} images")
    conditions = None
    if manifest.conditions_sha256 is not None:
        conditions = open_memmap(folder / CONDITIONS, mode="r")
    return ArraySource(
        plan.name,
        split,
        shards,
        rows=rows,
        labels=None if plan.labels is None else np.array(plan.labels, dtype=np.int64),
        classes=plan.classes,
        conditions=conditions,
        identity=manifest.identity_of(split),
    )


def changed_files(folder: Path, manifest: Manifest) -> list[str]:
    """The files of a prepared folder whose bytes are not those that were written."""
    wanted = {shard_name(number): sha256 for number, sha256 in enumerate(manifest.shards)}
    if manifest.conditions_sha256 is not None:
        wanted[CONDITIONS] = manifest.conditions_sha256
    return [name for name, sha256 in wanted.items() if _sha256(folder / name) != sha256]


def _sha256(file: Path) -> str:
    """In hexadecimal; empty for a file that cannot be read."""
    try:
        return file_sha256(file).hex()
    except OSError:
        return ""


def _mapped(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    try:
        images = open_memmap(file, mode="r")
    except Exception as error:  # hostile headers raise more kinds than can be listed
        raise UserError(f"cannot read the shard {file}: {error}; prepare the set again") from error
    if images.dtype != np.uint8 or images.shape != shape:
        raise UserError(
            f"the shard {file} holds {images.dtype} {images.shape}, its manifest says uint8 "
            f"{shape}; prepare the set again"
        )
    return images
