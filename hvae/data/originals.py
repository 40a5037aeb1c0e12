"""Sets as scores want them: as a whole or a split of it, a folder's images at their own sizes.

Training reads every image of a set at one size. Who scores images resizes them by a protocol of its
own, and must not meet images that were resized before by another filter.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, cast, get_args

import numpy as np
import torch
from torch import Tensor

from hvae.data.arrays import brings_test_images
from hvae.data.config import DataConfig
from hvae.data.decode import decode, glance
from hvae.data.folder import warn_of_bad_files
from hvae.data.identity import Identity, file_identity, joint_identity
from hvae.data.listing import SPLIT_FOLDERS, list_images, list_split, printable
from hvae.data.manifest import read_manifest
from hvae.data.parallel import parallel_map
from hvae.data.prepared import changed_files
from hvae.data.resize import rounded
from hvae.data.sampler import permuted
from hvae.data.source import ImageSource, SupportsTake, kind_and_path, open_source, stands_alone
from hvae.data.split import Split
from hvae.errors import UserError

Part = Literal["train", "test", "all"]


class Originals(Protocol):
    """A part of a set, uint8 (C, H, W) each, C 1 or 3; sizes may differ from image to image.

    Attributes:
        name: what results on the set are reported under.
        split: "train", "test" or "all".
    """

    name: str
    split: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...

    def identity(self) -> Identity:
        """The count and a content hash."""
        ...


class OriginalFolder:
    """The image files of a folder, at their own sizes and with their own channels.

    Args:
        root: the folder that `names` are relative to.
        split: what part of it `names` are.
        names: relative names, with forward slashes.
    """

    def __init__(self, root: Path, split: str, names: list[str]) -> None:
        self.name, self.split = root.resolve().name, split
        self._root, self._names = root, names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Tensor:
        """The image, uint8 (C, H, W).

        Raises:
            UserError: naming the file, if it cannot be read.
        """
        planes = decode(self._root / self._names[index])
        return torch.from_numpy(rounded(planes.astype(np.float32)))

    def file(self, index: int) -> str:
        """The file of an image, for messages."""
        return printable(str(self._root / self._names[index]))

    def identity(self) -> Identity:
        """The count and a hash over names and file contents; computed once."""
        return self._identity

    def traits(self) -> dict[str, dict[str, int]]:
        """What the files are like, by their headers: how many of each kind, the commonest first.

        "sizes" by "height x width", "channels" by "1" and "3", "formats" by suffix, "converted" by
        the rule they are read by (CMYK, 16-bit, transparent, rotated, ...).

        Raises:
            UserError: naming the first file that is no readable image.
        """
        found = list(parallel_map(glance, [self._root / name for name in self._names]))
        counts = {
            "sizes": Counter(f"{header.height}x{header.width}" for header, _ in found),
            "channels": Counter(str(header.channels) for header, _ in found),
            "formats": Counter(Path(name).suffix.lower() for name in self._names),
            "converted": Counter(kind for _, kinds in found for kind in kinds),
        }
        return {trait: dict(count.most_common()) for trait, count in counts.items()}

    @cached_property
    def _identity(self) -> Identity:
        return file_identity(self._root, self._names, None)


class Chosen:
    """Images of a set that a seed chooses, or all of them in their order; many are read at once.

    Args:
        source: the set.
        count: how many. None: all.
        seed: of the choice.
    """

    def __init__(self, source: Originals, count: int | None = None, *, seed: int = 0) -> None:
        if count is not None and count > len(source):
            raise UserError(f"{source.name} {source.split} has {len(source)} images, not {count}")
        self.source = source
        everything = range(len(source))
        self.rows: Sequence[int] = (
            everything
            if count in (None, len(source))
            else sorted(permuted(seed, 0, everything[:count], len(source)).tolist())
        )

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, start: int, stop: int) -> list[Tensor]:
        """Images `start` to `stop - 1` of the choice, uint8 (C, H, W) each."""
        rows = self.rows[start:stop]
        if isinstance(self.source, SupportsTake):
            return list(self.source.take(np.asarray(rows, dtype=np.int64)))
        return list(parallel_map(self.source.__getitem__, rows))

    @property
    def labelled(self) -> ImageSource:
        """The set with what else it knows of its images.

        Raises:
            UserError: that is not at hand; which part to name instead.
        """
        if isinstance(self.source, OriginalFolder | Joined):
            raise UserError(f"{self.source.name}: name one split of it, train or test")
        return cast(ImageSource, self.source)

    def file(self, index: int) -> str:
        """What names an image in a message: its file where it has one."""
        row = self.rows[index]
        if isinstance(self.source, OriginalFolder):
            return self.source.file(row)
        return f"image {row} of {self.source.name} {self.source.split}"


class Joined:
    """Parts of a set, one after the other, as its whole."""

    def __init__(self, *parts: ImageSource) -> None:
        self.name, self.split = parts[0].name, "all"
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __getitem__(self, index: int) -> Tensor:
        for part in self._parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError("no such image")

    def identity(self) -> Identity:
        """The count, and a hash over those of the parts."""
        return joint_identity([part.identity() for part in self._parts])


def open_part(config: DataConfig, part: Part | None) -> Originals:
    """A part of the set that `config.source` names, in the order of its files or rows.

    With a configured size or channel count the images are fitted to it, as training reads them;
    otherwise files of a folder keep their own.

    Args:
        config: which set.
        part: "train" or "test", as `open_source` splits it; "all". None: "test" where the set
            brings a test split of its own, "all" otherwise.

    Raises:
        UserError: if the word names nothing, the set cannot be read as wanted, or a prepared folder
            is not as it was made.
    """
    word = config.source
    kind, path = ("word", Path()) if stands_alone(word) else kind_and_path(word)
    if part is None:
        part = "test" if kind == "word" or _is_split(kind, path) else "all"
    if kind == "prepared":
        _check_unchanged(path)
    if kind == "folder" and config.size is None and config.channels is None:
        return _open_folder(path, part, skip_bad=config.skip_bad)
    if part != "all":
        return open_source(config, part)
    return Joined(*(open_source(config, split) for split in get_args(Split)))


def _check_unchanged(folder: Path) -> None:
    """Raises UserError where a prepared folder holds other bytes than its manifest says.

    Its identity is written there, and a score would be told to be of images that it is not of.
    """
    if changed := changed_files(folder, read_manifest(folder)):
        raise UserError(
            f"{folder}: {', '.join(changed[:3])} changed since it was made; prepare the set again"
        )


def _is_split(kind: str, path: Path) -> bool:
    """Whether a folder or a .npz says itself which of its images are for tests."""
    if kind == "folder":
        return all(
            any((path / name).is_dir() for name in names) for names in SPLIT_FOLDERS.values()
        )
    return kind in ("npy", "npz") and brings_test_images(path)


def _open_folder(root: Path, part: Part, *, skip_bad: bool) -> OriginalFolder:
    if part == "all":
        names = list_images(root)
    else:
        listing = list_split(root, part)
        root, names = listing.root, listing.names
    if skip_bad:
        bad = warn_of_bad_files(root, names)
        names = [name for name in names if root / name not in bad]
    return OriginalFolder(root, part, names)
