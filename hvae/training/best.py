"""The best score of a run so far, whose checkpoint is kept (`train.keep_best`)."""

from collections.abc import Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Score:
    """An evaluation: the step it was made at, its ELBO in bits/dim, and on how many images."""

    step: int
    bits_per_dim: float
    num_images: int


@dataclass(frozen=True)
class Best:
    """The best score now, and the one at the last good state; part of a checkpoint.

    A run that diverges goes back to its last good state, and the checkpoint that was the best one
    there has to be there still.
    """

    now: Score | None = None
    at_good: Score | None = None

    @property
    def steps(self) -> Set[int]:
        """Steps of the checkpoints that are kept."""
        return {score.step for score in (self.now, self.at_good) if score is not None}

    def after(self, score: Score, *, final: bool) -> Self:
        """Returns what is best after one more score.

        Scores on different numbers of images are not compared. On the way, the comparison begins
        anew with the later one; the final score does not count then.
        """
        if self.now is not None:
            comparable = score.num_images == self.now.num_images
            if final and not comparable:
                return self
            if comparable and score.bits_per_dim >= self.now.bits_per_dim:
                return self
        return replace(self, now=score)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, state: dict[str, Any], checkpoints: Path) -> Self:
        """Returns what the `state.json` of a checkpoint holds; earlier versions hold none.

        A score whose checkpoint is not in the folder is left out: a run that went back to an older
        one than it keeps has no use for it.
        """
        saved = state.get("best") or {}
        scores = {name: Score(**value) for name, value in saved.items() if value is not None}
        held = {name: s for name, s in scores.items() if (checkpoints / f"step-{s.step}").is_dir()}
        return cls(**held)
