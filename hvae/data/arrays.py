"""Sets stored as NumPy files."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import MAGIC_PREFIX, open_memmap
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from hvae.data.memory import ArraySource
from hvae.data.split import Split, hashed_rows
from hvae.errors import UserError
from hvae.zipped import stored_array, zipped_names

# Where a .npz may hold its images, or those of its training split: the first that exists.
IMAGE_KEYS = ("train_images", "images", "x", "arr_0")


def open_arrays(path: Path, split: Split) -> ArraySource:
    """The images of a .npy or .npz file.

    Images are uint8 (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3. A .npy is
    memory-mapped. A .npz holds them as `images`, `x` or `arr_0`, or as `train_images`. Its test
    split is `test_images`, if it has these; otherwise image i goes by the hash of the decimal i,
    one in 20 to test (see `hashed_rows`), as in a .npy.

    Optional are integer `labels`, named by an array of strings `classes`, and `conditions`, float
    (N, D) or uint8 images. Beside `train_images` and `test_images` they are called `train_labels`,
    `test_labels`, `train_conditions` and `test_conditions`.

    Raises:
        UserError: naming the file, if it is damaged, pickled, a decompression bomb, or of another
            dtype or layout.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{path} is no regular file")  # to open a pipe would wait for ever
        with path.open("rb") as file:
            if file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX:
                mapped = _mapped(path)
                return _source(path, split, mapped, is_split=False)
            # np.load would take anything else for a pickle, and say so.
            if not zipfile.is_zipfile(file):
                raise UserError(f"{path} is neither a .npy nor a .npz file, or is cut short")
            file.seek(0)
            with np.load(file, allow_pickle=False) as stored:
                return _open_npz(path, split, stored)
    except UserError:
        raise
    # Readers meet hostile bytes with ValueError, OSError, MemoryError, zlib.error, TokenError, ...
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read {path} as NumPy arrays: {reason}") from error


def brings_test_images(path: Path) -> bool:
    """Whether a file is a .npz with test images of its own."""
    return "test_images.npy" in zipped_names(path)


def _mapped(path: Path) -> NDArray[Any]:
    """A .npy file mapped into memory; a shape that overflows NumPy's sizes is an error."""
    with np.errstate(all="raise"):
        return open_memmap(path, mode="r")


def _open_npz(path: Path, split: Split, stored: NpzFile) -> ArraySource:
    key = next((key for key in IMAGE_KEYS if key in stored), None)
    if key is None:
        raise UserError(
            f"{path} has no images: wanted one of the arrays {', '.join(IMAGE_KEYS)}, found "
            f"{', '.join(stored) or 'none'}"
        )
    prefix = "train_" if key == "train_images" else ""
    is_split = "test_images" in stored
    if is_split and split == "test":
        key, prefix = "test_images", "test_"
    images = stored_array(path, stored, key)
    assert images is not None  # its key was found
    return _source(
        path,
        split,
        images,
        labels=stored_array(path, stored, f"{prefix}labels"),
        conditions=stored_array(path, stored, f"{prefix}conditions"),
        classes=stored_array(path, stored, "classes"),
        is_split=is_split,
    )


def _source(
    path: Path,
    split: Split,
    images: NDArray[Any],
    *,
    is_split: bool,
    labels: NDArray[Any] | None = None,
    conditions: NDArray[Any] | None = None,
    classes: NDArray[Any] | None = None,
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
    return ArraySource(
        path.stem,
        split,
        pixels,
        rows=rows,
        labels=labels,
        classes=_class_names(path, classes, labels),
        conditions=_conditions(path, conditions, len(pixels)),
    )


def _class_names(
    path: Path, classes: NDArray[Any] | None, labels: NDArray[Any] | None
) -> tuple[str, ...] | None:
    if classes is None or labels is None:
        return None
    highest = int(labels.max(initial=0))
    if classes.ndim != 1 or classes.dtype.kind != "U" or len(classes) <= highest:
        raise UserError(
            f"{path} holds classes {classes.dtype} {classes.shape}; wanted a string for each label "
            f"from 0 to {highest}"
        )
    return tuple(classes.tolist())


def _conditions(path: Path, conditions: NDArray[Any] | None, count: int) -> NDArray[Any] | None:
    """Vectors as float32 (N, D), or images as uint8 (N, C, H, W)."""
    if conditions is None:
        return None
    if conditions.shape[:1] != (count,):
        raise UserError(
            f"{path} holds conditions {conditions.dtype} {conditions.shape}; wanted one for each "
            f"of {count} images"
        )
    if conditions.dtype == np.uint8 and conditions.ndim > 2:
        return np.ascontiguousarray(_as_nchw(path, conditions))
    if conditions.dtype.kind == "f" and conditions.ndim == 2:
        return np.asarray(conditions, dtype=np.float32)
    raise UserError(
        f"{path} holds conditions {conditions.dtype} {conditions.shape}; wanted floats (N, D) or "
        "uint8 images"
    )


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
