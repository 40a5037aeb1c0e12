"""Sets stored as NumPy files."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import MAGIC_PREFIX, open_memmap
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from hvae.data.memory import ArraySource
from hvae.data.split import Split, hashed_rows
from hvae.errors import UserError

# Where a .npz may hold its images, or those of its training split: the first that exists.
IMAGE_KEYS = ("train_images", "images", "x", "arr_0")


def open_arrays(path: Path, split: Split) -> ArraySource:
    """The images of a .npy or .npz file.

    Images are uint8 (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3. A .npy is
    memory-mapped. A .npz holds them as `images`, `x` or `arr_0` with optional integer `labels`, or
    as `train_images` with `train_labels`. Its test split is `test_images` with `test_labels`, if
    it has these; otherwise image i goes by the hash of the decimal i, one in 20 to test (see
    `hashed_rows`), as in a .npy.

    Raises:
        UserError: naming the file, if it is damaged, pickled, or of another dtype or layout.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX:
                mapped = open_memmap(path, mode="r")
                return _source(path, split, mapped, labels=None, is_split=False)
            # np.load would take anything else for a pickle, and say so.
            if not zipfile.is_zipfile(file):
                raise UserError(f"{path} is neither a .npy nor a .npz file, or is cut short")
            file.seek(0)
            with np.load(file, allow_pickle=False) as stored:
                return _open_npz(path, split, stored)
    except UserError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"cannot read {path} as NumPy arrays: {error}") from error


def _open_npz(path: Path, split: Split, stored: NpzFile) -> ArraySource:
    key = next((key for key in IMAGE_KEYS if key in stored), None)
    if key is None:
        raise UserError(
            f"{path} has no images: wanted one of the arrays {', '.join(IMAGE_KEYS)}, found "
            f"{', '.join(stored) or 'none'}"
        )
    labels_key = "train_labels" if key == "train_images" else "labels"
    is_split = "test_images" in stored
    if is_split and split == "test":
        key, labels_key = "test_images", "test_labels"
    return _source(path, split, stored[key], stored.get(labels_key), is_split=is_split)


def _source(
    path: Path,
    split: Split,
    images: NDArray[Any],
    labels: NDArray[Any] | None,
    *,
    is_split: bool,
) -> ArraySource:
    """The source over checked arrays, which hold just this split or are divided by hash."""
    pixels = _as_nchw(path, images)
    if labels is not None and (labels.shape != pixels.shape[:1] or labels.dtype.kind not in "iu"):
        raise UserError(
            f"{path} holds labels {labels.dtype} {labels.shape}; wanted one integer for each of "
            f"{len(pixels)} images"
        )
    names = [str(index) for index in range(len(pixels))]
    rows = None if is_split else hashed_rows(names, split, str(path))
    return ArraySource(path.stem, split, pixels, rows=rows, labels=labels)


def _as_nchw(path: Path, images: NDArray[Any]) -> NDArray[np.uint8]:
    """The images as a uint8 (N, C, H, W) view, which leaves a memory map mapped."""
    found = f"{path} holds {images.dtype} {images.shape}"
    if images.dtype != np.uint8:
        raise UserError(f"{found}; images are uint8, 0..255: convert and save them as such")
    if images.size == 0:
        raise UserError(f"{found}: no image")
    if images.ndim == 3:
        return images[:, None]
    channels_at = [axis for axis in (1, 3) if images.ndim == 4 and images.shape[axis] in (1, 3)]
    if len(channels_at) != 1:
        raise UserError(
            f"{found}; wanted (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3, and only one "
            "way to read it"
        )
    return images if channels_at == [1] else images.transpose(0, 3, 1, 2)
