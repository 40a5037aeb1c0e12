"""What a run finds out about its averaged weights, and leaves in its log and folder."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hvae.data import ImageSource
from hvae.metrics.likelihood import LikelihoodResult
from hvae.models import HVAE
from hvae.training.config import Config
from hvae.training.distributed import World
from hvae.training.evaluation import evaluate
from hvae.training.metrics_log import MetricsLog
from hvae.training.run_folder import RunFolder
from hvae.training.sample_quality import SampleQuality
from hvae.training.sheets import write_sheets
from hvae.training.step import Stepper
from hvae.training.trackers import Trackers


class Assessment:
    """Scores, sheets and the distance of samples.

    Args:
        config: of the run.
        test: what is scored.
        world: all processes take part alike; the first one writes.
        folder, log, trackers: what takes the findings.
        quality: compares samples; None where `eval.fid_every` is 0.
        samples: on a sheet. None: as many as fill one.
    """

    def __init__(
        self,
        config: Config,
        test: ImageSource,
        world: World,
        folder: RunFolder,
        log: MetricsLog,
        trackers: Trackers,
        quality: SampleQuality | None,
        *,
        samples: int | None = None,
    ) -> None:
        self.config, self.test, self.world = config, test, world
        self.folder, self.log, self.trackers = folder, log, trackers
        self.quality, self.samples = quality, samples

    def likelihood(
        self, stepper: Stepper, *, images: int | None, importance: int = 1
    ) -> LikelihoodResult:
        """Scores the averaged weights, logs the score, and returns it.

        Raises:
            NotScored: if an image has no finite score.
        """
        began = time.monotonic()
        with _averaged(stepper) as model:
            score, row = evaluate(
                model,
                self.test,
                seed=self.config.seed,
                importance=importance,
                images=images,
                batch=self.config.eval.batch,
            )
        self._log("eval", stepper, {**row, "seconds": time.monotonic() - began})
        return score

    def sample_quality(self, stepper: Stepper) -> dict[str, Any]:
        """Compares samples with test images; logs the row, and returns it."""
        assert self.quality is not None
        with _averaged(stepper) as model:
            row = self.quality.score(model)
        return self._log("fid", stepper, row)

    def sheets(self, stepper: Stepper, stem: str) -> None:
        """Writes the sheets of samples and reconstructions."""
        folder = self.folder.samples if self.world.first else None
        with _averaged(stepper) as model, self.world.agreed():
            files = write_sheets(
                model, self.test, folder, stem, seed=self.config.seed, samples=self.samples
            )
        self.trackers.sheets(files, stepper.images)

    def _log(self, kind: str, stepper: Stepper, found: dict[str, Any]) -> dict[str, Any]:
        row = {"kind": kind, "step": stepper.steps, "images": stepper.images, **found}
        self.log.append(row)
        return row


@contextmanager
def _averaged(stepper: Stepper) -> Iterator[HVAE]:
    """Lends the model in evaluation mode, with averaged weights."""
    model = stepper.model
    with stepper.ema.applied_to(model):
        model.eval()
        try:
            yield model
        finally:
            model.train()
