"""`metrics.jsonl`: one JSON object a line, exact across a resume."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hvae.files import write_text


class MetricsLog:
    """Appends rows; every row names its step, and rows past a checkpoint are cut.

    `length` is the number of rows, once `cut_after` has been called.

    Args:
        file: holds them.
        watch: called with each row once it is on disk.
        writes: False leaves the file to another process: nothing is written, no row is read.
    """

    def __init__(
        self,
        file: Path,
        watch: Callable[[dict[str, Any]], None] | None = None,
        *,
        writes: bool = True,
    ) -> None:
        self.file, self.watch, self.writes = file, watch, writes
        self.length = 0

    def cut_after(self, step: int, most: int | None = None) -> None:
        """Drops what came after a checkpoint, and a last line that a kill left half written.

        Args:
            step: of the checkpoint; rows past it go.
            most: rows there were when it was saved. None: all of its step are taken to be.
        """
        self.length = 0
        if not self.writes or not self.file.exists():
            return
        written = self.file.read_bytes()
        lines = (line.rstrip() + b"\n" for line in written.splitlines())
        kept = [line for line in lines if (at := _step_of(line)) is not None and at <= step][:most]
        self.length, whole = len(kept), b"".join(kept)
        if not written.startswith(whole):
            write_text(self.file, whole.decode())
        elif len(written) > len(whole):  # in place, so that it can be done on a full disk
            os.truncate(self.file, len(whole))

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """Returns the whole rows of a kind."""
        if not self.writes or not self.file.exists():
            return []
        lines = self.file.read_text(encoding="utf-8").splitlines()
        return [row for row in map(json.loads, lines) if row["kind"] == kind]

    def append(self, row: dict[str, Any]) -> None:
        """Adds a row, synced: a checkpoint must not know of rows that are lost.

        Raises:
            OSError: if it cannot be written; no half of it is left then.
        """
        if not self.writes:
            return
        size = self.file.stat().st_size if self.file.exists() else 0
        try:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(_finite(row)) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError:
            if self.file.exists():
                os.truncate(self.file, size)
            raise
        self.length += 1
        if self.watch is not None:
            self.watch(row)


def _step_of(line: bytes) -> int | None:
    """The step that a line of the log names; None if it is not a whole row."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) else None


class Meter:
    """Means over the steps since the last row; part of a checkpoint, since rows must not change."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.sums: dict[str, float | list[float]] = {}

    def add(self, **values: float | list[float]) -> None:
        """Counts one step's values; a name that a step leaves out has fewer to its mean."""
        for name, value in values.items():
            self.counts[name] = self.counts.get(name, 0) + 1
            self.sums[name] = _added(self.sums[name], value) if name in self.sums else value

    def means(self) -> dict[str, float | list[float]]:
        """Returns the means, numbers or lists as they were added, and starts over."""
        means = {name: _divided(total, self.counts[name]) for name, total in self.sums.items()}
        self.counts, self.sums = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as JSON values."""
        return {"counts": self.counts, "sums": self.sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.counts, self.sums = dict(state["counts"]), dict(state["sums"])


def _added(a: float | list[float], b: float | list[float]) -> float | list[float]:
    if isinstance(a, list) and isinstance(b, list):
        return [x + y for x, y in zip(a, b, strict=True)]
    assert isinstance(a, float)
    assert isinstance(b, float)
    return a + b


def _divided(total: float | list[float], count: int) -> float | list[float]:
    return [x / count for x in total] if isinstance(total, list) else total / count


def _finite(value: Any) -> Any:
    """JSON knows no NaN or infinity: they become null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
