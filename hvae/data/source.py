"""What a set of images is to the rest of the package, and how a DATA word names one."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hvae.data.arrays import open_arrays
from hvae.data.config import DataConfig
from hvae.data.embedded import emoji_32, fashion_mini
from hvae.data.folder import open_folder
from hvae.data.generated import ShapesSource
from hvae.data.identity import Identity
from hvae.data.idx import open_fashion_mnist, open_idx
from hvae.data.manifest import is_prepared
from hvae.data.memory import ArraySource
from hvae.data.prepared import open_prepared
from hvae.data.split import Split
from hvae.errors import UserError
from hvae.files import user_path


class ImageSource(Protocol):
    """One split of a set of images of one shape, uint8 throughout.

    Attributes:
        name: what results on the set are reported under.
        split: "train" or "test".
        labels: int64 (N,), or None.
        classes: the name of each label, or None.
        conditions: what else is known of each image, float32 (N, D) or uint8 (N, C, H, W), or None.
    """

    name: str
    split: str
    labels: Tensor | None
    classes: tuple[str, ...] | None
    conditions: Tensor | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor:
        """Image `index` as uint8 (C, H, W)."""
        ...

    def identity(self) -> Identity:
        """The count and a content hash, for records and caches."""
        ...


@runtime_checkable
class SupportsTake(Protocol):
    """A source that hands out many images at once, so that workers would only slow it down."""

    def take(self, indices: NDArray[np.int64], /) -> Tensor:
        """The images at `indices` (B,), as fresh uint8 (B, C, H, W)."""
        ...


# Words that stand alone, and kinds that stand before a path.
WORDS: dict[str, Callable[[Split], ArraySource]] = {
    "fashion-mini": fashion_mini,
    "emoji-32": emoji_32,
    "fashion-mnist": lambda split: open_fashion_mnist(None, split),
}
KINDS: dict[str, Callable[[Path, Split], ArraySource]] = {
    "npy": open_arrays,
    "npz": open_arrays,
    "idx": open_idx,
    "fashion-mnist": open_fashion_mnist,
}
FOLDERS = ("folder", "prepared")
ARRAY_SUFFIXES = (".npy", ".npz")


def open_source(config: DataConfig, split: Split) -> ImageSource:
    """One split of the set that `config.source` names, at the configured size and channels.

    The DATA word is one of:

    * `fashion-mini`, `emoji-32`: embedded in the package; `fashion-mnist`: Debian's package;
      `shapes`: generated, (3, 32, 32) unless configured. These come with both splits, and win over
      a folder of the same name.
    * a folder of images: `train/` and `test/` or `valid/` are splits, otherwise the hash of the
      relative name sends one image in 20 to test; sub-folders are classes (see `list_split`).
    * a folder that `hvae data prepare` made, by its manifest: the same images, split and labels as
      those of its source.
    * a `.npy` or `.npz` file: without given test images the hash of the index sends one in 20 to
      test (see `open_arrays`).
    * `kind:PATH` with kind folder, prepared, npy, npz, idx or fashion-mnist, which forces the
      reading.

    Arrays of another size or channel count are converted here, once and in memory; files of a
    folder when they are read.

    Raises:
        UserError: if the word names nothing, or the set cannot be read as wanted.
    """
    if split not in get_args(Split):
        raise ValueError(f"wanted split train or test, got {split!r}")
    word = config.source
    if word == "shapes":
        return ShapesSource(split, (config.channels or 3, *(config.height_width or (32, 32))))
    if word in WORDS:
        return WORDS[word](split).fitted(config)
    kind, path = kind_and_path(word)
    if kind == "folder":
        return open_folder(path, split, config)
    if kind == "prepared":
        return _as_prepared(open_prepared(path, split), config)
    return KINDS[kind](path, split).fitted(config)


def _as_prepared(source: ArraySource, config: DataConfig) -> ArraySource:
    """The source if it is what the configuration asks for; resizing again would blur it."""
    channels, height, width = source.shape
    if config.height_width in (None, (height, width)) and config.channels in (None, channels):
        return source
    raise UserError(
        f"{config.source} was prepared at {height} x {width} with {channels} channels; leave "
        "data.size and data.channels out, or prepare its source again at what they say"
    )


def stands_alone(word: str) -> bool:
    """Whether a word names a set by itself, without a path."""
    return word == "shapes" or word in WORDS


def kind_and_path(word: str) -> tuple[str, Path]:
    """The reading and the path that a word asks for, explicitly or by what lies at the path."""
    kind, colon, rest = word.partition(":")
    if kind == "hf" and colon:
        raise UserError(
            f"{word}: Hugging Face sets cannot be read yet; export the images to a folder or a .npz"
        )
    if colon and (kind in FOLDERS or kind in KINDS):
        return kind, user_path(rest)
    path = user_path(word)
    if path.is_dir():
        return "prepared" if is_prepared(path) else "folder", path
    if path.suffix.lower() in ARRAY_SUFFIXES and path.exists():
        return "npy", path
    if path.exists():
        raise UserError(f"{path} is neither a folder of images nor a .npy or .npz file")
    raise UserError(_unknown(word))


def _unknown(word: str) -> str:
    """The message for a word that names nothing, with the nearest word that would."""
    kind, colon, rest = word.partition(":")
    known = [*FOLDERS, *KINDS] if colon else ["shapes", *WORDS]
    nearest = difflib.get_close_matches(kind, known, n=1)
    if nearest:
        return f"no set or file is named {word}; did you mean {nearest[0]}{colon}{rest}?"
    return (
        f"no set or file is named {word}; wanted {', '.join(['shapes', *WORDS])}, a folder of "
        f"images, a .npy or .npz file, or KIND:PATH with KIND {', '.join([*FOLDERS, *KINDS])}; "
        "a configuration takes it from data.source=PATH, such as data.source=~/photos"
    )
