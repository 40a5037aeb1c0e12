"""One run: what happens when, from its last checkpoint to its score."""

import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from hvae.data import ImageSource
from hvae.errors import TrainingError
from hvae.metrics.likelihood import LikelihoodResult
from hvae.models import HVAE
from hvae.training.assessment import Assessment
from hvae.training.batches import batches_left
from hvae.training.best import Best, Score
from hvae.training.build import build_model
from hvae.training.config import Config
from hvae.training.diagnostics import collapse_warning
from hvae.training.distributed import World
from hvae.training.locate import Place
from hvae.training.metrics_log import Meter, MetricsLog
from hvae.training.progress import TrainingProgress, eval_line, quality_line, train_line
from hvae.training.recovery import (
    EVALUATION,
    ROLLBACK,
    STOPPED,
    Diverged,
    NotScored,
    Recovery,
    alarm_row,
    in_words,
)
from hvae.training.restore import read_checkpoint
from hvae.training.rows import add_step, train_row
from hvae.training.run_folder import RunFolder
from hvae.training.sample_quality import SampleQuality
from hvae.training.sharding import birthplace
from hvae.training.signals import StopRequest
from hvae.training.step import Stepper
from hvae.training.trackers import Trackers


@dataclass(frozen=True)
class FitResult:
    """Where a run stands when `fit` returns.

    `bits_per_dim` is the ELBO on the test split, under the averaged weights; None if the run was
    stopped by a signal before its end. `rollbacks` counts the returns to an earlier state after
    training diverged; the rows of kind "alarm" in the log say why.
    """

    run: Path
    images: int
    bits_per_dim: float | None
    importance_bits_per_dim: float | None
    dataset: str
    split: str
    num_images: int
    stopped: bool
    rollbacks: int = 0


class Run:
    """The parts of a run, and what happens when."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        model: HVAE,
        train: ImageSource,
        test: ImageSource,
        world: World,
        trackers: Trackers,
        quality: SampleQuality | None,
        samples: int | None,
    ) -> None:
        self.config, self.folder, self.world = config, folder, world
        self.train, self.test = train, test
        self.trackers = trackers
        self.stepper = Stepper(model, config.train, config.seed, world)
        self.log = MetricsLog(folder.metrics, trackers.row, writes=world.first)
        self.assessment = Assessment(
            config, test, world, folder, self.log, trackers, quality, samples=samples
        )
        self.meter = Meter()
        self.recovery = Recovery()
        self.best = Best()
        self.result: dict[str, Any] | None = None

    def go(self, stop: StopRequest) -> FitResult:
        """Goes on from the last checkpoint to the end of the run, or to a signal."""
        latest = self.folder.begin(self.config)
        if latest is not None:
            self._restore(latest)
        else:
            self.log.cut_after(-1)
        total = self.config.train.images
        if self.result is not None and self.stepper.images >= total:
            return self._fit_result(stopped=False)
        self.folder.check_space(self.stepper)
        with TrainingProgress(total, self.stepper.images, quiet=not self.world.first) as progress:
            if latest is not None:
                progress.say(f"resuming {self.folder.path} at {self.stepper.images:,} images")
            while True:
                try:
                    return self._fit_result(stopped=self._train(stop, progress))
                except Diverged as reason:
                    self._roll_back(reason, progress)

    def _train(self, stop: StopRequest, progress: TrainingProgress) -> bool:
        """Goes on to the end of the run; returns whether a signal stopped it before."""
        if self.world.first:
            self.trackers.begin(self.stepper.images)
        batches = batches_left(self.config, self.train, self.stepper, self.world, self.meter)
        with closing(batches):
            for total, batch in self.world.in_step(batches):
                self._step(total, batch, progress)
                if self.world.any(stop.requested):
                    self.result = None  # an evaluation on the way is not the run's score
                    self._checkpoint(good=False)
                    return True
        self._finish(progress)
        return False

    def _step(self, total: int, batch: tuple[Tensor, ...], progress: TrainingProgress) -> None:
        began = time.monotonic()
        before = self.stepper.images
        try:
            report = self.stepper.step(*batch, total=total)
        except Diverged as reason:
            reason.place = self.stepper.locate(*batch, total=total)
            raise
        add_step(self.meter, report, batch=total, seconds=time.monotonic() - began)
        every, now = self.config.train, self.stepper.images

        def due(interval: int) -> bool:
            return now // interval > before // interval

        progress.update(now)
        if due(every.log_every):
            row = train_row(self.meter, self.stepper, report)
            self.log.append(row)
            progress.report(now, train_line(row))
        if now >= every.images:
            return  # the end has its own evaluation, sheets and checkpoint
        score = self._evaluate_on_the_way(progress) if due(every.eval_every) else None
        if due(every.sample_every):
            self.assessment.sheets(self.stepper, f"{now:09}")
        if self.config.eval.fid_every and due(self.config.eval.fid_every):
            self._compare_samples(progress)
        best = score is not None and self._note_if_best(score)
        if due(every.checkpoint_every):
            self._checkpoint(good=True)
        elif best:
            self._save()  # no state to go back to: how often a run is scored must not change it

    def _evaluate_on_the_way(self, progress: TrainingProgress) -> LikelihoodResult | None:
        """Evaluates and returns the score; one not finite is an alarm, and training goes on.

        It must not change the training: how often and on what a run is scored is free.
        """
        try:
            score = self._score(images=self.config.eval.images)
        except NotScored as error:
            row = alarm_row(EVALUATION, self.stepper.steps, self.stepper.images, error)
            self.log.append(row)
            progress.say(f"alarm at {in_words(row)}. Training goes on")
            return None
        progress.say(eval_line(score, self.stepper.images))
        self._warn_of_collapse(score, progress)
        return score

    def _note_if_best(self, score: LikelihoodResult, *, final: bool = False) -> bool:
        """Notes a score that is the best so far, whose checkpoint will be kept; whether it is."""
        if not self.config.train.keep_best or self.stepper.nonfinite_tensor() is not None:
            return False
        made = Score(self.stepper.steps, score.elbo_bits_per_dim, score.num_images)
        self.best = self.best.after(made, final=final)
        return self.best.now == made

    def _warn_of_collapse(self, score: LikelihoodResult, progress: TrainingProgress) -> None:
        if warning := collapse_warning(score.kl_per_group):
            progress.say(warning)

    def _score(self, *, images: int | None, importance: int = 1) -> LikelihoodResult:
        """Scores the averaged weights and keeps what the result of the run would be."""
        score = self.assessment.likelihood(self.stepper, images=images, importance=importance)
        self.result = {
            "bits_per_dim": score.elbo_bits_per_dim,
            "importance_bits_per_dim": score.importance_bits_per_dim,
            "num_images": score.num_images,
        }
        return score

    def _compare_samples(self, progress: TrainingProgress) -> None:
        row = self.assessment.sample_quality(self.stepper)
        progress.say(quality_line(row))

    def _finish(self, progress: TrainingProgress) -> None:
        """The checkpoint comes last: once it is there, all that belongs to the run is."""
        self._check_finite()
        self.assessment.sheets(self.stepper, "final")
        try:
            score = self._score(images=None, importance=self.config.eval.importance)
        except NotScored as error:
            row = alarm_row(STOPPED, self.stepper.steps, self.stepper.images, error)
            self.log.append(row)
            raise TrainingError(f"the run has no score at {in_words(row)}") from None
        self._warn_of_collapse(score, progress)
        if self.config.eval.fid_every:
            self._compare_samples(progress)
        self._note_if_best(score, final=True)
        self._checkpoint(good=True)

    def _checkpoint(self, *, good: bool) -> None:
        """Commits a checkpoint.

        Args:
            good: the schedule asked for it, so that a run that diverges goes back to it if it is
                healthy here, or has come to its end.

        Raises:
            Diverged: if a tensor is not finite; nothing is written then.
        """
        self._check_finite()
        ended = self.stepper.images >= self.config.train.images  # with a finite score
        if good and (ended or self.stepper.guard.healthy):
            self.recovery = replace(self.recovery, good_step=self.stepper.steps)
            self.best = replace(self.best, at_good=self.best.now)
        self._save()

    def _check_finite(self) -> None:
        name = self.stepper.nonfinite_tensor()
        if name is not None:
            text = f"first not finite: the tensor {name}"
            place = Place(name.partition(": ")[2].rpartition(".")[0], text)
            raise Diverged("the weights or what goes with them are not finite", place)

    def _save(self) -> None:
        done = self.stepper.images >= self.config.train.images
        result = self.result if done else None
        self.folder.save(
            self.config,
            self.stepper,
            self.meter,
            result,
            self.recovery,
            best=self.best,
            log_rows=self.log.length,
        )

    def _roll_back(self, reason: Diverged, progress: TrainingProgress) -> None:
        """Goes back to the last good state at half the learning rate.

        The checkpoint there is saved again with the new rate before the alarm is logged: a kill in
        between loses the row, which `_restore` writes again.

        Raises:
            TrainingError: if the run has been rolled back often enough.
        """
        stepper, alarms = self.stepper, self.recovery.alarms
        rollbacks, most = stepper.guard.rollbacks + 1, self.config.train.guard.max_rollbacks
        row = alarm_row(STOPPED, stepper.steps, stepper.images, reason)
        if rollbacks > most:
            self.log.append(row)
            raise TrainingError(
                f"training diverged for good at {in_words(row)}. It was rolled back {most} times; "
                f"the last good state is in {self.folder.path}. Begin anew with name=... and a "
                "lower train.lr or a longer train.warmup_images; docs/stability.md says what to "
                "look at first"
            )
        if self.recovery.good_step is None:
            self._start_over()
        else:
            self._restore(self.folder.rewind(self.recovery.good_step))
        stepper, self.result = self.stepper, None
        stepper.guard.rollbacks = rollbacks
        row |= {
            "event": ROLLBACK,
            "step": stepper.steps,
            "images": stepper.images,
            "from_step": row["step"],
            "from_images": row["images"],
            "rollbacks": rollbacks,
            "lr_scale": stepper.guard.lr_scale,
        }
        self.recovery = Recovery(stepper.steps, (*alarms, row))
        self._save()
        self.log.append(row)
        progress.update(stepper.images)
        progress.say(
            f"alarm at {in_words(row)}. Back at step {stepper.steps} ({stepper.images:,} images) "
            f"with {stepper.guard.lr_scale:g} of the learning rate; roll-back {rollbacks} of {most}"
        )

    def _start_over(self) -> None:
        """Puts the run back to its initial state; there is no checkpoint of it."""
        model = build_model(self.config, birthplace(self.world, self.config.train.sharding))
        self.stepper = Stepper(model, self.config.train, self.config.seed, self.world)
        self.meter, self.best = Meter(), Best()
        self.log.cut_after(-1)

    def _restore(self, folder: Path) -> None:
        with self.world.agreed():
            tensors, state = read_checkpoint(folder, self.stepper)
            self.stepper.load(tensors, state)
        self.meter.load_state_dict(state["meter"])
        self.recovery = Recovery.of(state)
        keep_best = self.config.train.keep_best
        self.best = Best.of(state, self.folder.checkpoints) if keep_best else Best()
        self.result = state["result"]
        self.log.cut_after(self.stepper.steps, state.get("log_rows"))
        logged = sum(row["event"] == ROLLBACK for row in self.log.rows("alarm"))
        for row in self.recovery.alarms[logged:]:
            self.log.append(row)

    def _fit_result(self, *, stopped: bool) -> FitResult:
        result = {} if stopped else self.result or {}
        return FitResult(
            run=self.folder.path,
            images=self.stepper.images,
            bits_per_dim=result.get("bits_per_dim"),
            importance_bits_per_dim=result.get("importance_bits_per_dim"),
            dataset=self.test.name,
            split=self.test.split,
            num_images=result.get("num_images", 0),
            stopped=stopped,
            rollbacks=self.stepper.guard.rollbacks,
        )
