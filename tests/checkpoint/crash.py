"""Kills inside one process: an exception before each operation on the file system in turn."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hvae.checkpoint import saving

_OPERATIONS = ("rename", "replace", "mkdir", "unlink", "remove", "rmdir", "fsync", "truncate")


class Crash(BaseException):
    """A kill: no handler of the code under test may run on it."""


@contextmanager
def crash_at(countdown: int) -> Iterator[Callable[[], int]]:
    """Raises `Crash` before operation number `countdown`; yields what counts them.

    A file that was to be written is left empty, one of tensors half written.
    """
    calls = 0

    def due() -> bool:
        nonlocal calls
        calls += 1
        return calls == countdown

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            if due():
                raise Crash
            return operation(*args, **options)

        return run

    def counted_open(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if mode[0] in "wa" and due():
            plain_open(file, mode).close()
            raise Crash
        return plain_open(file, mode, *args, **options)

    def counted_save(tensors: Any, file: Path) -> None:
        crashes = due()
        save_file(tensors, file)
        if crashes:
            truncate(file, file.stat().st_size // 2)
            raise Crash

    plain_open, save_file, truncate = io.open, saving.save_file, os.truncate
    with pytest.MonkeyPatch.context() as patch:
        for name in _OPERATIONS:
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(io, "open", counted_open)
        patch.setattr(saving, "save_file", counted_save)
        yield lambda: calls
