"""What a run does when it diverges: back to its last good state at half the learning rate, or end.

The last good state is the last checkpoint that the schedule asked for, or the start of the run. A
copy in memory would be lost by a stop or a kill, and the resumed run would go back to another point
than the one that was never stopped; the checkpoint costs no memory, and at most `checkpoint_every`
images. For the same reason checkpoints of a stop are no such state. One amid steps that are not
finite, or worse than noise, is none either.
"""

from dataclasses import dataclass
from typing import Any

from hvae.errors import HvaeError, TrainingError
from hvae.training.locate import Place

ROLLBACK, STOPPED, EVALUATION = "rollback", "stopped", "evaluation"  # events of alarms


class Diverged(TrainingError):
    """Training cannot go on from where it stands; `place` is where it goes wrong, once known."""

    def __init__(self, reason: str, place: Place | None = None) -> None:
        super().__init__(reason)
        self.place = place


class NotScored(HvaeError):
    """An image has a score that is not finite; `place` is where it first was not."""

    def __init__(self, reason: str, place: Place | None) -> None:
        super().__init__(reason)
        self.place = place


@dataclass(frozen=True)
class Recovery:
    """Where a run goes back to, and how often it has; part of a checkpoint.

    Attributes:
        good_step: step of the checkpoint to go back to; None for the start of the run.
        alarms: the rows in the log of the roll-backs so far.
    """

    good_step: int | None = None
    alarms: tuple[dict[str, Any], ...] = ()

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as JSON values."""
        return {"good_step": self.good_step, "alarms": list(self.alarms)}

    @classmethod
    def of(cls, state: dict[str, Any]) -> "Recovery":
        """Returns what the `state.json` of a checkpoint holds; earlier versions: that itself."""
        saved = state.get("recovery")
        if saved is None:
            return cls(good_step=state["step"])
        return cls(saved["good_step"], tuple(saved["alarms"]))


def alarm_row(event: str, step: int, images: int, error: Diverged | NotScored) -> dict[str, Any]:
    """Returns the row of an alarm: what happened where; null for a module that was not found."""
    place = error.place
    return {
        "kind": "alarm",
        "event": event,
        "step": step,
        "images": images,
        "reason": str(error),
        "module": None if place is None else place.module,
        "found": None if place is None else place.text,
    }


def in_words(row: dict[str, Any]) -> str:
    """Returns an alarm as a sentence, without what follows from it."""
    step, images = row.get("from_step", row["step"]), row.get("from_images", row["images"])
    found = f"; {row['found']}" if row["found"] else ""
    return f"step {step} ({images:,} images): {row['reason']}{found}"
