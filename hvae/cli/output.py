"""What the verbs print: results on stdout, progress and errors on stderr."""

import errno
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import typer

from hvae.errors import StorageError, UserError

# A disk, quota or file-size limit that is full, and a device that fails or went read-only.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def print_result(record: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Prints a result: one JSON object for scripts, or a text for people."""
    typer.echo(json.dumps(record, allow_nan=False) if as_json else printable(text))


def fail(message: str, exit_code: int) -> typer.Exit:
    """Prints one line on stderr and returns what to raise."""
    note(f"hvae: {' '.join(message.split())}")
    return typer.Exit(exit_code)


def printable(text: str) -> str:
    """Returns a text with escapes for what a terminal would obey and for bytes that are no UTF-8.

    Names of files may hold both. Line breaks stay.
    """
    return "".join(
        letter if letter.isprintable() or letter == "\n" else _escaped(letter) for letter in text
    )


def _escaped(letter: str) -> str:
    """A character as it would stand in a Python string; one of a file name's odd bytes as that."""
    is_byte = "\udc80" <= letter <= "\udcff"
    return f"\\x{ord(letter) - 0xDC00:02x}" if is_byte else ascii(letter)[1:-1]


def example(text: str) -> str:
    """Returns the end of a verb's help, its lines kept as they are."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in text.splitlines())


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Turns a failure to write a file into an error that names it.

    Raises:
        StorageError: the disk is full or broken.
        UserError: any other reason, such as a folder that is a file.
    """
    try:
        yield
    except OSError as error:
        kind = StorageError if error.errno in _DISK else UserError
        raise kind(f"cannot write {file}: {error.strerror}") from None


def check_writable(file: Path) -> None:
    """Raises UserError for a file that cannot be written: before hours of work, not after."""
    with writing(file):
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        file.with_name(f".{file.name}.tmp").exists()  # raises where the name is too long
        folder = next(parent for parent in file.absolute().parents if os.path.lexists(parent))
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def plain_warnings() -> None:
    """Shows warnings as one line each, without a place in the source that means nothing here."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        note(f"hvae: warning: {message}")

    warnings.showwarning = show


def note(message: str) -> None:
    """Prints a line on stderr, where it is not part of a result."""
    typer.echo(printable(message), err=True)


def table(rows: Mapping[str, object]) -> str:
    """Returns names and values as lines, the values aligned."""
    width = max(map(len, rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows progress on stderr: a bar on a terminal, a line per tenth of the work elsewhere.

    Yields a function to call with the amount done so far.
    """
    show = _bar if sys.stderr.isatty() else _lines
    with show(what, total) as update:
        yield update


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def _lines(what: str, total: int) -> Iterator[Callable[[int], None]]:
    tenths_shown = 0
    began = time.monotonic()

    def update(done: int) -> None:
        nonlocal tenths_shown
        tenths = 10 * done // total
        if tenths > tenths_shown:
            tenths_shown = tenths
            left = round((time.monotonic() - began) * (total - done) / done)
            note(
                f"{what}: {done} of {total}" + (f", {timedelta(seconds=left)} left" if left else "")
            )

    yield update
