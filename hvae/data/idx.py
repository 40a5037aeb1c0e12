"""The idx files of the MNIST family, as Debian's dataset-fashion-mnist installs them."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvae.data.embedded import FASHION_CLASSES
from hvae.data.memory import ArraySource
from hvae.data.split import Split
from hvae.errors import UserError
from hvae.zipped import refuse_bomb

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_COUNT = {"train": 60_000, "test": 10_000}
PREFIX = {"train": "train", "test": "t10k"}

IDX_UINT8 = 8


def open_fashion_mnist(folder: Path | None, split: Split) -> ArraySource:
    """Fashion-MNIST, 60,000 or 10,000 images (1, 28, 28), from Debian's folder or a given one.

    Raises:
        UserError: if a file is missing or damaged, or holds another set.
    """
    images, labels = _read_split(folder or DEBIAN_FOLDER, split)
    if images.shape != (FASHION_COUNT[split], 1, 28, 28):
        raise UserError(
            f"{folder or DEBIAN_FOLDER} holds {len(images)} {split} images of "
            f"{images.shape[2]} x {images.shape[3]}, Fashion-MNIST has {FASHION_COUNT[split]} of "
            "28 x 28; read another set of this form as idx:DIR"
        )
    return ArraySource("fashion-mnist", split, images, labels=labels, classes=FASHION_CLASSES)


def open_idx(folder: Path, split: Split) -> ArraySource:
    """Any set of `{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]` files in a folder.

    Raises:
        UserError: if a file is missing or damaged.
    """
    images, labels = _read_split(folder, split)
    return ArraySource(folder.resolve().name, split, images, labels=labels)


def read_idx(path: Path, rank: int) -> NDArray[np.uint8]:
    """The uint8 array of an idx file: bytes 0 0 type rank, big-endian int32 sizes, values.

    Args:
        path: the file, gzip-compressed if its name ends in .gz.
        rank: the rank it must have.

    Raises:
        UserError: naming the file, if its header or length is not as it should be.
    """
    start = 4 + 4 * rank
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(start)
            if len(header) < start or header[:4] != bytes([0, 0, IDX_UINT8, rank]):
                raise UserError(
                    f"{path} is no idx file of {rank}-dimensional bytes: starts {header[:4]!r}"
                )
            sizes = np.frombuffer(header, dtype=">i4", offset=4).tolist()
            promised = math.prod(sizes) if min(sizes) > 0 else 0
            refuse_bomb(str(path), promised, path.stat().st_size)
            data = file.read(promised + 1)  # never all: a compressed file may hold gigabytes
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not promised or len(data) != promised:
        found = f"{len(data)} or more" if len(data) > promised else len(data)
        raise UserError(f"{path} promises {' x '.join(map(str, sizes))} bytes and holds {found}")
    return np.frombuffer(data, dtype=np.uint8).reshape(sizes)


def _read_split(folder: Path, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (N, 1, H, W) and labels (N,)."""
    images = read_idx(_find(folder, f"{PREFIX[split]}-images-idx3-ubyte"), rank=3)
    labels = read_idx(_find(folder, f"{PREFIX[split]}-labels-idx1-ubyte"), rank=1)
    if len(images) != len(labels):
        raise UserError(f"{folder} holds {len(images)} {split} images but {len(labels)} labels")
    return images[:, None], labels


def _find(folder: Path, stem: str) -> Path:
    for name in (f"{stem}.gz", stem):
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{folder} has no {stem}.gz; install Fashion-MNIST with `apt-get install "
        "dataset-fashion-mnist`, or name a folder that holds the files: fashion-mnist:DIR"
    )
