"""Which files of a folder are images, which split they belong to, and what class they show."""

import errno
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hvae.data.decode import SUFFIXES
from hvae.data.split import Split, hashed_rows
from hvae.errors import UserError

# Sub-folders that hold a given split, the best first: test images fall back to validation images.
SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "test": ("test", "valid", "val"),
}


@dataclass(frozen=True)
class Listing:
    """The images of one split of a folder.

    Attributes:
        root: the folder that `names` are relative to.
        names: sorted, with forward slashes.
        everything: the files of all splits together, which have to agree on one size.
        classes: class names of all splits, sorted; None where images lie outside sub-folders.
    """

    root: Path
    names: list[str]
    everything: list[Path]
    classes: tuple[str, ...] | None

    def labels(self, names: list[str]) -> list[int] | None:
        """The index of every name's class, or None without classes."""
        if self.classes is None:
            return None
        index = {name: i for i, name in enumerate(self.classes)}
        return [index[_class_of(name)] for name in names]


def list_split(root: Path, split: Split) -> Listing:
    """The images of a split of a folder, at any depth.

    A folder that holds `train/` and `test/` (or else `valid/` or `val/`) comes split; files beside
    these are not read. Otherwise, `train/` alone counting as the whole, an image goes by the
    sha256 of its relative name, one in 20 to test (see `hashed_rows`). The first sub-folders below
    are the classes.

    Raises:
        UserError: if there is no image, naming the folder and the accepted suffixes.
    """
    folders = {side: _split_folder(root, side) for side in SPLIT_FOLDERS}
    train, test = folders["train"], folders["test"]
    if test and not train:
        raise UserError(f"{root} has {test.name}/ but no train/; name {test} to read it as a whole")
    if train and test:
        listed = {"train": (train, list_images(train)), "test": (test, list_images(test))}
        everything = [folder / name for folder, names in listed.values() for name in names]
        classes = _classes(name for _, names in listed.values() for name in names)
        return Listing(*listed[split], everything, classes)
    whole = train or root
    names = list_images(whole)
    chosen = [names[row] for row in hashed_rows(names, split, str(whole))]
    return Listing(whole, chosen, [whole / name for name in names], _classes(names))


def list_images(root: Path) -> list[str]:
    """Relative names of all image files below a folder, sorted; see `scan`.

    Raises:
        UserError: if there is none, or a folder cannot be read.
    """
    names = scan(root).images
    if not names:
        raise UserError(f"no image in {root}; accepted are {', '.join(SUFFIXES)}, at any depth")
    return names


@dataclass(frozen=True)
class Scan:
    """What lies below a folder, by names relative to it.

    Attributes:
        images: files with the suffix of an image, sorted.
        others: how many files there are with each other suffix, the commonest first.
        dead_links: links that add nothing, with their kind: "link loop" to a folder that the link
            lies in or to itself, "repeated folder" to one that is read anyway, "broken link".
    """

    images: list[str]
    others: dict[str, int]
    dead_links: dict[str, str]


def scan(root: Path) -> Scan:
    """Looks through a folder at any depth.

    Every real folder is read once, under its own name where it lies below `root`, so symbolic
    links neither loop nor bring an image twice. Hidden files and folders are left out.

    Raises:
        UserError: if a folder cannot be read.
    """
    images: list[str] = []
    others: Counter[str] = Counter()
    dead_links: dict[str, str] = {}
    seen: set[str] = set()
    folders, links = [root], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(folder)
        if real in seen:
            inside = Path(os.path.realpath(folder.parent)).is_relative_to(real)
            name = folder.relative_to(root).as_posix()
            dead_links[name] = "link loop" if inside else "repeated folder"
            continue
        seen.add(real)
        for path in _visible(folder):
            name = path.relative_to(root).as_posix()
            # os.path.isdir is False for a link to itself, where DirEntry.is_dir raises.
            if os.path.isdir(path):
                (links if path.is_symlink() else folders).append(path)
            elif path.name.lower().endswith(SUFFIXES):
                images.append(name)
            elif path.is_symlink() and not os.path.exists(path):
                dead_links[name] = _dead_link(path)
            else:
                others[path.suffix.lower() or "no suffix"] += 1
    return Scan(sorted(images), dict(others.most_common()), dict(sorted(dead_links.items())))


def _dead_link(path: Path) -> str:
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "link loop"
    return "broken link"


def printable(name: str) -> str:
    """A file's name as text: bytes that are no UTF-8, which JSON has no place for, are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _visible(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from error


def _split_folder(root: Path, split: Split) -> Path | None:
    return next((root / name for name in SPLIT_FOLDERS[split] if (root / name).is_dir()), None)


def _classes(names: Iterable[str]) -> tuple[str, ...] | None:
    found = {_class_of(name) for name in names}
    return None if "" in found else tuple(sorted(found))


def _class_of(name: str) -> str:
    """The first sub-folder of a relative name, empty if it has none."""
    return name.partition("/")[0] if "/" in name else ""
