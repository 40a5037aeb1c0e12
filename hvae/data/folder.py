"""A folder of image files, decoded when asked for."""

import warnings
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from hvae.data.config import DataConfig
from hvae.data.decode import Header, decode, read_header
from hvae.data.identity import Identity, file_identity
from hvae.data.listing import Listing, list_split
from hvae.data.parallel import parallel_map
from hvae.data.resize import fit
from hvae.data.split import Split
from hvae.errors import UserError

SHOWN = 20  # bad files or sizes named in a message

Value = TypeVar("Value")


class FolderSource:
    """An `ImageSource` over image files.

    Args:
        name: what results are reported under.
        root: the folder that `names` are relative to.
        split: "train" or "test".
        names: files of the split.
        shape: (C, H, W) that every image is fitted to.
        labels: class of every file, or None.
        classes: the name of each label, or None.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        split: Split,
        names: list[str],
        shape: tuple[int, int, int],
        labels: list[int] | None = None,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        self.name = name
        self.split: str = split
        self.shape = shape
        self.classes = classes
        self.conditions: Tensor | None = None
        self.labels = None if labels is None else torch.tensor(labels, dtype=torch.int64)
        self._root = root
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Tensor:
        """The image as uint8 (C, H, W).

        Raises:
            UserError: naming the file, if it cannot be read.
        """
        return torch.from_numpy(fit(decode(self.path(index)), self.shape))

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self._root / self._names[index]

    @property
    def names(self) -> list[str]:
        """Relative names of the files, with forward slashes."""
        return self._names

    def identity(self) -> Identity:
        """The count and a hash over names and file contents; computed once."""
        return self._identity

    @cached_property
    def _identity(self) -> Identity:
        return file_identity(self._root, self._names, self.shape)


def open_folder(root: Path, split: Split, config: DataConfig) -> FolderSource:
    """The images of a split of a folder; see `list_split` for splits and classes.

    Unreadable files raise when they are asked for, or, with `skip_bad`, are found here by one full
    decode, named in a warning and left out.

    Raises:
        UserError: if there is no (readable) image, or no size or channel count is given and the
            images differ in it.
    """
    listing = list_split(root, split)
    bad = warn_of_bad_files(listing.root, listing.names) if config.skip_bad else set()
    return _source(root, split, config, listing, bad)


def open_unchecked(root: Path, split: Split, config: DataConfig) -> FolderSource:
    """As `open_folder`, but with the unreadable files, whatever `skip_bad` says.

    It only decides whether a header that cannot be read is an error where headers are needed.
    """
    return _source(root, split, config, list_split(root, split), set())


def _source(
    root: Path, split: Split, config: DataConfig, listing: Listing, bad: set[Path]
) -> FolderSource:
    names = [name for name in listing.names if listing.root / name not in bad]
    shape = _shape(root, [path for path in listing.everything if path not in bad], config)
    labels = listing.labels(names)
    return FolderSource(
        root.resolve().name, listing.root, split, names, shape, labels, listing.classes
    )


def warn_of_bad_files(root: Path, names: list[str]) -> set[Path]:
    """The files that cannot be decoded, after a warning that names them.

    Raises:
        UserError: if there is no other.
    """
    paths = [root / name for name in names]
    problems = dict(zip(paths, parallel_map(_problem, paths), strict=True))
    bad = {path: problem for path, problem in problems.items() if problem}
    if len(bad) == len(paths):
        raise _none_readable(root, len(paths))
    if bad:
        listed = "\n".join([*bad.values()][:SHOWN])
        more = f"\n... and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        warnings.warn(f"skipping {len(bad)} of {len(paths)} files:\n{listed}{more}", stacklevel=3)
    return set(bad)


def _none_readable(root: Path, count: int) -> UserError:
    return UserError(f"none of the {count} image files in {root} can be read")


def _problem(path: Path) -> str:
    """Why a file cannot be decoded, empty if it can."""
    try:
        decode(path)
    except UserError as error:
        return str(error)
    return ""


def _shape(root: Path, paths: list[Path], config: DataConfig) -> tuple[int, int, int]:
    """(C, H, W) as configured, otherwise as all files agree; headers are read only if needed."""
    size: tuple[int, int] | None = config.height_width
    channels: int | None = config.channels
    if size is None or channels is None:
        read = _header_or_none if config.skip_bad else read_header
        headers = [header for header in parallel_map(read, paths) if header]
        if not headers:
            raise _none_readable(root, len(paths))
        sizes = Counter((header.height, header.width) for header in headers)
        kinds = Counter(header.channels for header in headers)
        size = size or _only(sizes, f"{root} holds images of several sizes (height, width)", "size")
        channels = channels or _only(kinds, f"{root} holds grey (1) and RGB (3) images", "channels")
    return channels, *size


def _header_or_none(path: Path) -> Header | None:
    try:
        return read_header(path)
    except UserError:
        return None


def _only(found: Counter[Value], problem: str, key: str) -> Value:
    """The one value found.

    Raises:
        UserError: if there are several, listing the commonest and the key that decides.
    """
    if len(found) > 1:
        listed = ", ".join(f"{value} x {count}" for value, count in found.most_common(SHOWN))
        raise UserError(f"{problem}: {listed}; set data.{key} (`hvae data prepare`: --{key})")
    return next(iter(found))
