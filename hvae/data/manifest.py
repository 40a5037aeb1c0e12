"""What a prepared folder says of itself, in one JSON file beside its pixels.

    prepared.json         the manifest, written last: without it the folder is not finished
    images-00000.npy ...  uint8 (n, C, H, W), `rows_per_shard` rows each, the last one fewer
    conditions.npy        what the source knows of every row, if anything
    .progress/            while the folder is being made

Row i is image i of the training split, followed by those of the test split. The row of an image
that was left out stays zero, so that every image's place is known before any is read.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from hvae.data.identity import Identity
from hvae.data.split import Split
from hvae.errors import UserError
from hvae.section import Section

MANIFEST = "prepared.json"
CONDITIONS = "conditions.npy"

Positive = Annotated[int, Field(ge=1)]
Model = TypeVar("Model", bound=Section)


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"images-{number:05}.npy"


class Plan(Section):
    """What a prepared folder will hold, known before the first image is read."""

    format: Literal["hvae-prepared"] = "hvae-prepared"
    version: Literal[1] = 1

    source: str
    """The DATA word that it is made from."""

    source_state: str
    """sha256 over the names, sizes and times of the files of a folder, or over other pixels."""

    name: str
    """What results on the set are reported under."""

    shape: tuple[Positive, Positive, Positive]
    """(C, H, W)."""

    resampling: Literal["lanczos"] = "lanczos"
    crop: Literal["centre"] = "centre"

    rows_per_shard: Positive
    rows: dict[Split, Annotated[int, Field(ge=0)]]
    """Rows of each split, those left out included."""

    names: tuple[str, ...] | None
    """Of every row, for a set that has names."""

    labels: tuple[int, ...] | None
    classes: tuple[str, ...] | None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.rows.keys() != {"train", "test"}:
            raise ValueError("rows are wanted for train and test")
        for name in ("names", "labels"):
            values = getattr(self, name)
            if values is not None and len(values) != self.num_rows:
                raise ValueError(f"there are {len(values)} {name} for {self.num_rows} rows")
        return self

    @property
    def num_rows(self) -> int:
        """Over both splits."""
        return sum(self.rows.values())

    @property
    def image_bytes(self) -> int:
        """A byte for each value."""
        return math.prod(self.shape)

    @property
    def num_shards(self) -> int:
        """The last one may be short."""
        return -(-self.num_rows // self.rows_per_shard)

    def shard_rows(self, number: int) -> range:
        """The rows of a shard."""
        start = number * self.rows_per_shard
        return range(start, min(start + self.rows_per_shard, self.num_rows))

    def split_rows(self, split: Split) -> range:
        """The rows of a split, those left out included."""
        start = 0 if split == "train" else self.rows["train"]
        return range(start, start + self.rows[split])


class Skipped(Section):
    """An image that was left out, and why."""

    row: int = Field(ge=0)
    name: str
    kind: str
    reason: str


class Shard(Section):
    """A finished shard.

    `source_sha256` are those of the files its rows were read from, in hexadecimal, for sets that
    are files; they make the identity of the whole.
    """

    sha256: str
    skipped: tuple[Skipped, ...] = ()
    source_sha256: tuple[str, ...] = ()


class SplitIdentity(Section):
    """The identity of a split: that of the same split read from the source at the same size."""

    count: int = Field(ge=0)
    sha256: str


class Manifest(Section):
    """A finished folder."""

    plan: Plan
    shards: tuple[str, ...]
    """The sha256 of every shard's file."""

    skipped: tuple[Skipped, ...]
    identity: dict[Split, SplitIdentity]
    conditions_sha256: str | None = None

    def kept_rows(self, split: Split) -> NDArray[np.int64]:
        """The rows of a split that hold an image."""
        rows = self.plan.split_rows(split)
        skipped = [entry.row for entry in self.skipped]
        return np.setdiff1d(np.arange(rows.start, rows.stop), skipped)

    def identity_of(self, split: Split) -> Identity:
        """Count and hash of a split."""
        return Identity(**self.identity[split].model_dump())


def is_prepared(folder: Path) -> bool:
    """Whether a folder is a finished prepared one, by its manifest."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared folder.

    Raises:
        UserError: if it is missing, damaged, or of another version.
    """
    return read_json(folder / MANIFEST, Manifest)


def read_json(file: Path, model: type[Model]) -> Model:
    """A file of the folder, checked.

    Raises:
        UserError: naming the file and what is wrong in it.
    """
    try:
        return model.model_validate_json(file.read_bytes(), strict=False)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except ValidationError as error:
        raise UserError(f"{file} is no manifest of this version: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    found: Any = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, found["loc"]))
    return f"{place}: {found['msg']}" if place else str(found["msg"])
