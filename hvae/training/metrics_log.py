"""`metrics.jsonl`: one JSON object a line, exact across a resume."""

import json
import math
import os
from pathlib import Path
from typing import Any

from hvae.checkpoint import write_text


class MetricsLog:
    """Appends rows; every row names its step, and rows past a checkpoint's step are cut.

    Args:
        file: where they are.
        writes: False leaves the file to another process: nothing is written, no row is read.
    """

    def __init__(self, file: Path, *, writes: bool = True) -> None:
        self.file = file
        self.writes = writes

    def cut_after(self, step: int) -> None:
        """Drops rows past a step, and a last line that a kill left half written."""
        if not self.writes or not self.file.exists():
            return
        kept = []
        for line in self.file.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if row["step"] <= step:
                kept.append(line + "\n")
        write_text(self.file, "".join(kept))

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """Returns the whole rows of a kind."""
        if not self.writes or not self.file.exists():
            return []
        lines = self.file.read_text(encoding="utf-8").splitlines()
        return [row for row in map(json.loads, lines) if row["kind"] == kind]

    def append(self, row: dict[str, Any]) -> None:
        """Adds a row, synced: a checkpoint must not know of rows that are lost."""
        if not self.writes:
            return
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(_finite(row)) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


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
