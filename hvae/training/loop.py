"""`fit`: a run from its configuration to its score, resumable at any point."""

import math
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hvae import checkpoint
from hvae.data import ImageSource, Loader, complete_condition, open_source
from hvae.errors import UserError
from hvae.metrics.likelihood import evaluate_likelihood
from hvae.models import HVAE
from hvae.ops.philox import derive_seed, make_rng
from hvae.training.config import Config
from hvae.training.metrics_log import Meter, MetricsLog
from hvae.training.progress import TrainingProgress
from hvae.training.run_folder import RunFolder
from hvae.training.sheets import write_sheets
from hvae.training.signals import StopRequest, stop_on_signal
from hvae.training.step import Stepper, StepReport


@dataclass(frozen=True)
class FitResult:
    """Where a run stands when `fit` returns.

    `bits_per_dim` is the ELBO on the test split, under the averaged weights; None if the run was
    stopped by a signal before its end.
    """

    run: Path
    images: int
    bits_per_dim: float | None
    importance_bits_per_dim: float | None
    dataset: str
    split: str
    num_images: int
    stopped: bool


def fit(config: Config, *, device: torch.device | str | None = None) -> FitResult:
    """Trains the run a configuration describes, from its last checkpoint if it has one.

    On one machine and device kind the result is the same, bit for bit, however often the run was
    stopped or killed on the way. SIGINT and SIGTERM save a checkpoint before returning.

    Args:
        config: the run; sizes it leaves open are taken from the data.
        device: None takes the GPU if there is one.

    Raises:
        UserError: if the data, the layout or the run folder do not fit; nothing is written then.
        TrainingError: if training cannot go on.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    train, test = open_source(config.data, "train"), open_source(config.data, "test")
    config = complete(config, train)
    complete_condition(config.model.condition, test)  # a check: both splits tell the same
    model = build_model(config, device)
    folder = RunFolder(config)
    with folder.locked(), stop_on_signal() as stop:
        return _Run(config, folder, model, train, test).go(stop)


def complete(config: Config, source: ImageSource) -> Config:
    """Returns the configuration with size, channels and classes of the model taken from the data.

    Raises:
        UserError: if it names others.
    """
    channels, *sides = source.shape
    found: dict[str, Any] = {"size": tuple(sides), "channels": channels}
    for key, value in found.items():
        asked = getattr(config.model, key)
        if asked not in (None, value):
            raise UserError(
                f"model.{key} is {asked}, but that of {config.data.source} is {value}; leave "
                f"model.{key} out, or set data.{key}"
            )
    found["condition"] = complete_condition(config.model.condition, source)
    return config.model_copy(update={"model": config.model.model_copy(update=found)})


def build_model(config: Config, device: torch.device) -> HVAE:
    """Returns the run's model with its initial weights, which the seed alone decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "init"))
        model = HVAE(config.model)
    return model.to(device)


class _Run:
    """The parts of a run, and what happens when."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        model: HVAE,
        train: ImageSource,
        test: ImageSource,
    ) -> None:
        self.config, self.folder = config, folder
        self.train, self.test = train, test
        self.stepper = Stepper(model, config.train, config.seed)
        self.log = MetricsLog(folder.metrics)
        self.meter = Meter()
        self.result: dict[str, Any] | None = None

    def go(self, stop: StopRequest) -> FitResult:
        latest = self.folder.begin(self.config)
        if latest is not None:
            self._restore(latest)
        else:
            self.log.cut_after(-1)
        total = self.config.train.images
        if self.result is not None and self.stepper.images >= total:
            return self._fit_result(stopped=False)
        with TrainingProgress(total, self.stepper.images) as progress:
            if latest is not None:
                progress.say(f"resuming {self.folder.path} at {self.stepper.images:,} images")
            for batch in self._batches():
                self._step(batch, progress)
                if stop.requested:
                    self.result = None  # an evaluation on the way is not the run's score
                    self._checkpoint()
                    return self._fit_result(stopped=True)
        self._finish()
        return self._fit_result(stopped=False)

    def _batches(self) -> Iterator[tuple[Tensor, ...]]:
        """Yields the images that are left, and their conditions for a model that takes any.

        The last batch is cut to the length of the run.
        """
        data, total = self.config.data, self.config.train.images
        loader = Loader(
            self.train,
            batch=data.batch,
            seed=derive_seed(self.config.seed, "data"),
            flip=data.flip,
            workers=data.workers,
        )
        model = self.stepper.model
        seed = derive_seed(self.config.seed, "condition")
        for batch in loader.batches(self.stepper.images):
            left = total - batch.position
            if left <= 0:
                return
            x = batch.images.to(model.device, non_blocking=True)
            rng = make_rng(seed, batch.position, model.device)
            cond = model.condition_of(x, batch.labels, batch.conditions, rng=rng)
            yield (x[:left],) if cond is None else (x[:left], cond[:left])

    def _step(self, batch: tuple[Tensor, ...], progress: TrainingProgress) -> None:
        began = time.monotonic()
        before = self.stepper.images
        report = self.stepper.step(*batch)
        self.meter.add(skipped=float(report.skipped), seconds=time.monotonic() - began)
        if math.isfinite(report.grad_norm):  # one bad step must not blank a whole row
            self.meter.add(
                objective=report.objective.item(),
                nll=report.nll.item(),
                kl_per_group=report.kl.tolist(),
                grad_norm=report.grad_norm,
                clipped=float(report.grad_norm > report.clip_norm),
            )
        every, now = self.config.train, self.stepper.images

        def due(interval: int) -> bool:
            return now // interval > before // interval

        progress.update(now)
        if due(every.log_every):
            progress.report(now, self._log_train(report, len(batch[0])))
        if now >= every.images:
            return  # the end has its own evaluation, sheets and checkpoint
        if due(every.eval_every):
            progress.say(self._evaluate(images=self.config.eval.images))
        if due(every.sample_every):
            self._write_sheets(f"{now:09}")
        if due(every.checkpoint_every):
            self._checkpoint()

    def _log_train(self, report: StepReport, batch: int) -> str:
        means: dict[str, Any] = self.meter.means()
        seconds = means.pop("seconds")
        kl = sum(means.get("kl_per_group", ()))
        nats = means.get("nll", math.nan) + kl
        row = {
            "kind": "train",
            "step": self.stepper.steps,
            "images": self.stepper.images,
            "bits_per_dim": nats / (math.log(2) * self.stepper.model.num_dims),
            **means,
            "kl": kl,
            "beta": report.beta,
            "free_bits": report.free_bits,
            "lr": report.lr,
            "clip_norm": report.clip_norm,
            "skips": self.stepper.guard.skips,
            "images_per_second": batch / seconds,
            "memory_mib": _peak_memory_mib(self.stepper.model.device),
        }
        self.log.append(row)
        return f"{row['bits_per_dim']:.3f} bits/dim  {row['images_per_second']:.0f} images/s" + (
            f"  {row['skips']} skipped" if row["skips"] else ""
        )

    def _evaluate(self, *, images: int | None, importance: int = 1) -> str:
        """Scores the averaged weights, logs the score, and returns it in words."""
        began = time.monotonic()
        with self._averaged_model() as model:
            score = evaluate_likelihood(
                model,
                self.test,
                seed=self.config.seed,
                importance=importance,
                images=images,
                batch=self.config.eval.batch,
            )
        self.log.append(
            {
                "kind": "eval",
                "step": self.stepper.steps,
                "images": self.stepper.images,
                **asdict(score),
                "seconds": time.monotonic() - began,
            }
        )
        self.result = {
            "bits_per_dim": score.elbo_bits_per_dim,
            "importance_bits_per_dim": score.importance_bits_per_dim,
            "num_images": score.num_images,
        }
        bits, seen = score.elbo_bits_per_dim, self.stepper.images
        return f"{self.test.split} {bits:.4f} bits/dim at {seen:,} images"

    def _write_sheets(self, stem: str) -> None:
        with self._averaged_model() as model:
            write_sheets(model, self.test, self.folder.samples, stem, seed=self.config.seed)

    @contextmanager
    def _averaged_model(self) -> Iterator[HVAE]:
        """Lends the model in evaluation mode, with averaged weights."""
        model = self.stepper.model
        with self.stepper.ema.applied_to(model):
            model.eval()
            yield model
            model.train()

    def _finish(self) -> None:
        """The checkpoint comes last: once it is there, all that belongs to the run is."""
        self._write_sheets("final")
        self._evaluate(images=None, importance=self.config.eval.importance)
        self._checkpoint()

    def _checkpoint(self) -> None:
        done = self.stepper.images >= self.config.train.images
        self.folder.save(self.config, self.stepper, self.meter, self.result if done else None)

    def _restore(self, folder: Path) -> None:
        state = checkpoint.read_state(folder)
        files = {f"{stem}.safetensors": stem for stem in ("model", "ema", "optim")}
        tensors = {stem: checkpoint.read_tensors(folder / file) for file, stem in files.items()}
        wanted = self.stepper.model.state_dict()
        for stem in ("model", "ema"):
            checkpoint.check_tensors(tensors[stem], wanted, folder / f"{stem}.safetensors")
        self.stepper.load(tensors, state)
        self.meter.load_state_dict(state["meter"])
        self.result = state["result"]
        self.log.cut_after(self.stepper.steps)

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
        )


def _peak_memory_mib(device: torch.device) -> float:
    """Peak memory so far: of the process for a CPU, of the allocator for a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
