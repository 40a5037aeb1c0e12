"""Gradient control from a running quantile of the gradient norm, without a dead-lock.

A fixed threshold that every batch exceeds stops training for good (openai/vdvae #25). Here the
threshold follows the norms, skipped steps are recorded at a bounded value, and after a bounded run
of skips a step is clipped and taken. What clipping cannot mend is a divergence, which the run
answers by going back to its last good state (`hvae.training.recovery`).
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

from hvae.training.config import GuardConfig
from hvae.training.recovery import Diverged

_ENOUGH = 64  # norms recorded before the quantile is trusted and steps may be skipped
_UNIFORM_BITS = 8.0  # bits/dim of uniform noise on uint8 data, which needs no model


@dataclass(frozen=True)
class Verdict:
    """What to do with a gradient: scale it and step, or skip the step (`scale` None)."""

    scale: float | None
    threshold: float

    @property
    def skip(self) -> bool:
        """Whether the step is left out."""
        return self.scale is None


class Guard:
    """Clips to the running quantile of recent norms, skips norms far above it.

        norm not finite                              skip
        norm > skip_factor x threshold, and fewer
            than max_skips skips in a row            skip, record skip_factor x threshold
        else                                         scale by min(1, threshold / norm), record

    The threshold is the quantile of the last `window` recorded norms; before 64 are recorded it is
    twice their median, and nothing finite is skipped. `clip_norm` and `skip_norm` of the
    configuration take the place of the threshold and of skip_factor x threshold, from the first
    step on; that no run of skips exceeds max_skips holds all the same.
    """

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self.norms: deque[float] = deque(maxlen=config.window)
        self.skips_in_row = 0
        self.nonfinite_in_row = 0
        self.above_uniform_in_row = 0
        self.above_uniform = False
        self.skips = 0
        self.rollbacks = 0

    @property
    def lr_scale(self) -> float:
        """What the learning rate is multiplied with: one half for each roll-back."""
        return 0.5**self.rollbacks

    @property
    def healthy(self) -> bool:
        """Whether the last step was finite, and its objective not above that of noise."""
        return self.nonfinite_in_row == 0 and not self.above_uniform

    def judge(self, norm: float) -> Verdict:
        """Returns the verdict on a step whose global gradient norm is `norm`, and records it.

        Raises:
            Diverged: after `max_nonfinite` non-finite steps in a row.
        """
        threshold = self._threshold()
        if not math.isfinite(norm):
            return self._skip_nonfinite(threshold)
        self.nonfinite_in_row = 0
        limit = self.config.skip_norm or self.config.skip_factor * threshold
        trusted = self.config.skip_norm is not None or len(self.norms) >= _ENOUGH
        may_skip = trusted and self.skips_in_row < self.config.max_skips
        if norm > 0:  # a threshold of zero could never rise again
            self.norms.append(min(norm, limit))
        if norm > limit and may_skip:
            self.skips_in_row += 1
            self.skips += 1
            return Verdict(None, threshold)
        self.skips_in_row = 0
        return Verdict(min(1.0, threshold / norm) if norm > 0 else 1.0, threshold)

    def watch(self, bits_per_dim: float, *, warm: bool = True) -> None:
        """Counts the steps in a row whose objective is above that of uniform noise.

        The best objective is never above it, whatever the weight of the KL: a model may ignore its
        latents. A run that stays there has diverged, however finite its numbers are.

        Args:
            bits_per_dim: the objective of a step.
            warm: the step counts; before, it only tells whether the run is healthy.

        Raises:
            Diverged: after `max_above_uniform` such steps.
        """
        limit = self.config.max_above_uniform
        if limit is None or not math.isfinite(bits_per_dim):
            return
        self.above_uniform = bits_per_dim > _UNIFORM_BITS
        counts = warm and self.above_uniform
        self.above_uniform_in_row = self.above_uniform_in_row + 1 if counts else 0
        if self.above_uniform_in_row >= limit:
            raise Diverged(
                f"{self.above_uniform_in_row} steps in a row had an objective above "
                f"{_UNIFORM_BITS:.0f} bits/dim, what uniform noise costs; the last one "
                f"{bits_per_dim:.4g}"
            )

    def _skip_nonfinite(self, threshold: float) -> Verdict:
        self.nonfinite_in_row += 1
        self.skips += 1
        if self.nonfinite_in_row >= self.config.max_nonfinite:
            raise Diverged(
                f"{self.nonfinite_in_row} steps in a row had an objective or a gradient that is "
                "not finite"
            )
        return Verdict(None, threshold)

    def _threshold(self) -> float:
        if self.config.clip_norm is not None:
            return self.config.clip_norm
        ordered = sorted(self.norms)
        if not ordered:
            return math.inf
        if len(ordered) < _ENOUGH:
            return 2 * ordered[len(ordered) // 2]
        return ordered[math.ceil(self.config.quantile * len(ordered)) - 1]

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as JSON values."""
        return {
            "norms": list(self.norms),
            "skips_in_row": self.skips_in_row,
            "nonfinite_in_row": self.nonfinite_in_row,
            "above_uniform_in_row": self.above_uniform_in_row,
            "above_uniform": self.above_uniform,
            "skips": self.skips,
            "rollbacks": self.rollbacks,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.norms = deque(state["norms"], maxlen=self.config.window)
        self.skips_in_row = state["skips_in_row"]
        self.nonfinite_in_row = state["nonfinite_in_row"]
        self.skips = state["skips"]
        # Absent from the checkpoints of earlier versions.
        self.above_uniform_in_row = state.get("above_uniform_in_row", 0)
        self.above_uniform = state.get("above_uniform", False)
        self.rollbacks = state.get("rollbacks", 0)
