"""Compressed arrays, unpacked only after a look at what they would take."""

import math
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from hvae.errors import UserError

# What is far larger than its compressed form was made to fill memory: deflate shrinks images of a
# few flat colours 20 to 100 times, and nothing more than 1,032 times.
BOMB_BYTES = 2**28
BOMB_RATIO = 200


def stored_array(path: Path, stored: NpzFile, key: str) -> NDArray[Any] | None:
    """An array of an open .npz file, None if it has none of that name.

    Raises:
        UserError: if the array's header promises other than its bytes hold, its bytes are a
            decompression bomb, or there are two of the name.
        ValueError: if NumPy cannot read it, or would have to unpickle it.
    """
    if key not in stored:
        return None
    archive = cast(zipfile.ZipFile, stored.zip)
    names = archive.namelist()
    name = key if key in names else f"{key}.npy"
    if names.count(name) > 1:
        raise UserError(f"{path} holds {key} twice, and only one can be meant")
    entry = archive.getinfo(name)
    refuse_bomb(f"{path} ({key})", entry.file_size, entry.compress_size)
    with archive.open(entry) as file:
        shape, dtype = _header(cast(BinaryIO, file))
        start = file.tell()
    promised = start + dtype.itemsize * math.prod(shape)
    if not dtype.hasobject and promised != entry.file_size:
        raise UserError(
            f"{path} ({key}) promises {dtype} {shape}, {promised} bytes, and holds "
            f"{entry.file_size}"
        )
    return np.asarray(stored[key])


def zipped_names(path: Path) -> list[str]:
    """Returns what a zip archive holds; nothing for what is no archive, or a damaged one."""
    if not path.is_file():  # to open a pipe would wait for ever
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # hostile archives raise more kinds than can be listed
        return []


def refuse_bomb(what: str, num_bytes: int, packed_bytes: int) -> None:
    """Raises UserError for what would fill memory out of a small file."""
    if num_bytes > BOMB_BYTES and num_bytes > BOMB_RATIO * packed_bytes:
        raise UserError(
            f"{what} would unpack {packed_bytes} bytes to {num_bytes}, as decompression bombs do; "
            "if it is what it should be, save it as a plain .npy"
        )


def _header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in readers:
        raise ValueError(f"version {version} of the .npy format is not read")
    shape, _, dtype = readers[version](file)
    return shape, dtype
