"""What a run's log says, as points that can be drawn: of runs that are done, going on or broken."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvae.errors import HvaeError, UserError
from hvae.models.layout import Layout
from hvae.training.config_file import load_config
from hvae.training.recovery import ROLLBACK

# Of rows of kind train; all are numbers, or null where they were not finite.
TRAIN = ("bits_per_dim", "kl", "grad_norm", "clip_norm", "skipped", "clipped", "lr", "beta",
         "images_per_second", "memory_mib")  # fmt: skip

Number = float | None


@dataclass(frozen=True)
class Alarm:
    """Where training diverged or an evaluation failed, and why."""

    images: int
    event: str
    reason: str


@dataclass(frozen=True)
class Curves:
    """The points of one run; None stands for a value that was not finite.

    Attributes:
        name: of the run folder.
        images: images seen at each row of kind train (T,).
        train: a list of T for each name of `TRAIN`.
        kl_per_group: nats per image, (T, L), coarse to fine; None for a row without.
        resolutions: of the L groups, where the run's configuration is there and valid.
        test_images: images seen at each evaluation (E,).
        test_bits_per_dim: its ELBO (E,).
        test_counts: images that it scored (E,).
        test_set: the name of the data and its split, where there was an evaluation.
        fid_images: images seen at each comparison of samples (F,).
        fid: its distance (F,).
        fid_name: what it is called, where there was one.
        alarms: in the order of the log.
    """

    name: str
    images: list[int]
    train: dict[str, list[Number]]
    kl_per_group: list[list[Number] | None]
    resolutions: list[int] | None
    test_images: list[int]
    test_bits_per_dim: list[Number]
    test_counts: list[int]
    test_set: str | None
    fid_images: list[int]
    fid: list[Number]
    fid_name: str | None
    alarms: list[Alarm]

    @property
    def num_groups(self) -> int:
        """L, or 0 if no row tells."""
        return max((len(kl) for kl in self.kl_per_group if kl), default=0)


def read_curves(run: Path) -> Curves:
    """Returns the points in a run folder's `metrics.jsonl`.

    A last line that is half written, of a run that goes on or was killed, is left out.

    Raises:
        UserError: if this is no run folder, or its log holds no rows or what is no row.
    """
    file = run / "metrics.jsonl"
    if not file.is_file():
        what = "has no metrics.jsonl" if run.is_dir() else "is not there"
        raise UserError(f"{run} {what}; wanted a run folder such as runs/fashion-mini")
    rows = _rows(file)
    train = [row for row in rows if row["kind"] == "train"]
    test = [row for row in rows if row["kind"] == "eval"]
    fid = [row for row in rows if row["kind"] == "fid"]
    alarms = [row for row in rows if row["kind"] == "alarm"]
    if not rows:
        raise UserError(f"{file} is empty: the run has not come to its first row (train.log_every)")
    return Curves(
        name=run.resolve().name,
        images=[row["images"] for row in train],
        train={name: [_number(row.get(name)) for row in train] for name in TRAIN},
        kl_per_group=[_numbers(row.get("kl_per_group")) for row in train],
        resolutions=_resolutions(run),
        test_images=[row["images"] for row in test],
        test_bits_per_dim=[_number(row.get("elbo_bits_per_dim")) for row in test],
        test_counts=[row["num_images"] for row in test],
        test_set=f"{test[-1]['dataset']} {test[-1]['split']}" if test else None,
        fid_images=[row["images"] for row in fid],
        fid=[_number(row["value"]) for row in fid],
        fid_name=fid[-1]["metric"] if fid else None,
        alarms=[_alarm(row) for row in alarms],
    )


def _rows(file: Path) -> list[dict[str, Any]]:
    lines = file.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            assert {"kind", "images"} <= row.keys()
        except (json.JSONDecodeError, AssertionError, AttributeError):
            if number == len(lines):
                break
            raise UserError(f"{file}:{number}: this is no row of a run's log") from None
        rows.append(row)
    return rows


def _alarm(row: dict[str, Any]) -> Alarm:
    """A roll-back stands in the log where the run went back to; it is shown where it broke."""
    images = row["from_images"] if row["event"] == ROLLBACK else row["images"]
    return Alarm(images, row["event"], row["reason"])


def _number(value: object) -> Number:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _numbers(values: Sequence[object] | None) -> list[Number] | None:
    return None if values is None else [_number(value) for value in values]


def _resolutions(run: Path) -> list[int] | None:
    """Of the latent groups, coarse to fine; they only name them, so that a doubt is no error."""
    try:
        blocks = Layout.parse(load_config(run / "config.yaml").model).decoder
    except (HvaeError, OSError):
        return None
    return [block.resolution for block in blocks]
