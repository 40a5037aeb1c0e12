"""Reading and hashing the files of a run, and a full disk told in one line."""

import errno
import json
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hvae.errors import StorageError, UserError
from hvae.files import sha256

# A disk, quota or file-size limit that is full, and a device that went read-only.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_MOST_JSON_BYTES = 64 << 20  # the state of a run takes some 20 KiB
_MIB = 1 << 20


def read_json(file: Path) -> dict[str, Any]:
    """Returns a JSON object; UserError if the file is missing, far too large, or is not one."""
    try:
        if file.stat().st_size > _MOST_JSON_BYTES:
            raise UserError(f"{file}: {told_bytes(file.stat().st_size)}, too large to be meant")
        values = json.loads(file.read_text(encoding="utf-8"))
    # A ValueError is text that is no JSON or UTF-8, or a number of thousands of digits.
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{file}: cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{file}: wanted a JSON object, got {type(values).__name__}")
    return values


def sha256_of(files: Iterable[Path]) -> list[str]:
    """Returns the sha256 of each file; all are read at once, since hashing keeps a core busy."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(sha256, files))


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raises StorageError unless `needed` bytes are free where a folder is.

    Args:
        folder: an existing one.
        needed: bytes about to be written.
        what: they are, for the message.
    """
    disk = shutil.disk_usage(folder)
    if disk.total and disk.free < needed:  # some network file systems tell nothing
        raise _full(folder, needed, what, "the disk is too full")


@contextmanager
def full_disk_is_told(folder: Path, needed: int = 0, what: str = "the next file") -> Iterator[None]:
    """Turns the failure of a full or broken disk into a StorageError that names the folder.

    Args:
        folder: what is written to.
        needed: bytes of what is written; 0 if that is not known.
        what: that is.
    """
    try:
        yield
    except OSError as error:
        # EIO may come from reading images as well, where it is not known that something is written.
        if error.errno not in (_FULL | {errno.EIO} if needed else _FULL):
            raise
        raise _full(folder, needed, what, error.strerror or str(error)) from None


def told_bytes(count: int) -> str:
    """Returns a number of bytes in MiB, as a message has it."""
    return f"{count / _MIB:,.1f} MiB"


def _full(folder: Path, needed: int, what: str, reason: str) -> StorageError:
    wants = f"{what} needs {told_bytes(needed)}" if needed else f"{what} cannot be written"
    free = told_bytes(shutil.disk_usage(folder).free)
    return StorageError(
        f"{folder}: {wants}, {free} are free: {reason}. What was saved before is as it was; make "
        "room and run the same command again"
    )
