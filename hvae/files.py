"""Files that appear whole or not at all, and folders that one process writes to at a time."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hvae.errors import UserError


def user_path(text: str) -> Path:
    """Returns the path that a user wrote, a leading ~ expanded.

    Raises:
        UserError: it is empty, longer than the system takes, or in the home of nobody.
    """
    if not text:
        raise UserError("wanted the name of a file, a folder or a set, got an empty word")
    try:
        path = Path(text).expanduser()
        path.exists()  # many other questions about it would pass an error on
    except RuntimeError:
        raise UserError(f"{text}: there is no such user, whose home it would be in") from None
    except OSError as error:
        raise UserError(f"{text[:80]}: {error.strerror}") from None
    return path


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """Lends a stream to write a file whole or not at all: a temporary one, synced, then renamed."""
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
        sync(temporary)
        temporary.rename(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(file.parent)  # or what the new name makes superfluous may be gone before it is there


def write_text(file: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    with replacing(file) as stream:
        stream.write(text.encode())


def sha256(file: Path) -> str:
    """Returns the sha256 of a file, hexadecimal, read in pieces."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flushes a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Holds a lock file, made if missing, against other processes until the context ends.

    A lock that processes forked in the context do not inherit: after a kill they would hold it.

    Raises:
        BlockingIOError: if another process holds it.
    """
    with file.open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
