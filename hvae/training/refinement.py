"""The adversarial stage of a trained run whose weights stay as they are.

    RUN/refine/metrics.jsonl  samples/  latest  checkpoints/step-<n>/{ema,refiner,...}.safetensors

The run itself is only read. Each checkpoint has passed a check for harm on test images; a stage
that does harm goes back to its last one with half the weight of the adversary.
"""

import math
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from hvae import __version__, checkpoint
from hvae.data import ImageSource, Loader, Prefetcher, save_grid, worker_count
from hvae.data.originals import Chosen
from hvae.errors import TrainingError, UserError
from hvae.files import sha256
from hvae.losses.perceptual import Perceptual
from hvae.metrics.features import NetworkExtractor, open_extractor
from hvae.models import HVAE
from hvae.nn.feature_maps import FeatureMaps
from hvae.ops.philox import derive_seed, make_rng
from hvae.training.config import Config
from hvae.training.harm import Harm, Quality, find_harm, quality
from hvae.training.metrics_log import Meter, MetricsLog
from hvae.training.precision import uses_bf16
from hvae.training.progress import TrainingProgress
from hvae.training.refine_config import RefineConfig
from hvae.training.refine_step import RefineReport, RefineStepper
from hvae.training.signals import StopRequest

Stepper = TypeVar("Stepper", bound=RefineStepper)

_SHEET = 32  # images on a sheet, each unrefined and refined


@dataclass(frozen=True)
class RefineResult:
    """Where the stage stands when `refine` returns.

    Attributes:
        folder: of the stage.
        images: real images seen.
        harm: what refined images differ by, at the last check; None before the first.
        weakened: times that the adversary was weakened because of harm.
        stopped: by a signal, after saving.
        ended: why the stage ended before its last image; None if it did not.
    """

    folder: Path
    images: int
    harm: Harm | None
    weakened: int
    stopped: bool
    ended: str | None = None


class Refinement:
    """The parts of the stage, and what happens when."""

    def __init__(
        self,
        run: Path,
        weights: Path,
        config: Config,
        model: HVAE,
        train: ImageSource,
        test: ImageSource,
    ) -> None:
        self.run, self.folder = run, self.folder_of(run)
        self.weights, self.base = weights, sha256(weights)
        self.config, self.settings = config, config.refine
        self.train, self.test = train, test
        count = min(self.settings.harm.images, len(test))
        self.held_out = Chosen(test, count, seed=config.seed)
        perceptual = _maps("perceptual", self.settings.perceptual, model)
        self.perceptual = None if perceptual is None else Perceptual(perceptual)
        named = self.settings.discriminator.features
        self.maps = _maps("discriminator.features", named, model)
        self.stepper = self._begin(model)
        self.log = MetricsLog(self.folder / "metrics.jsonl")
        self.meter = Meter()
        self.harm: Harm | None = None
        self.weakened = 0
        self.ended: str | None = None

    @staticmethod
    def folder_of(run: Path) -> Path:
        """Returns the stage's folder in a run."""
        return run / checkpoint.REFINE

    def _begin(self, model: HVAE) -> RefineStepper:
        return self._make(RefineStepper, model, self.config.seed)

    def _make(self, kind: type[Stepper], model: HVAE, seed: int) -> Stepper:
        return kind(
            model,
            self.settings,
            seed,
            self.perceptual,
            maps=self.maps,
            bf16=uses_bf16(self.config.train, model.device),
        )

    @property
    def total(self) -> int:
        """Images of the stage, in whole batches."""
        batch = self.settings.batch
        return math.ceil(self.settings.images / batch) * batch

    def go(self, stop: StopRequest) -> RefineResult:
        """Goes on from the last checkpoint to the end of the stage, or to a signal."""
        latest = checkpoint.newest_complete(self.folder)
        if latest.checkpoint is not None:
            self._restore(latest.checkpoint)
        elif latest.damaged:
            raise UserError(f"{self.folder}: no checkpoint of it is complete; {latest}")
        else:
            self.log.cut_after(-1)
        with TrainingProgress(self.total, self.stepper.images) as progress:
            while self.stepper.images < self.total and self.ended is None:
                if self._train(stop, progress):
                    return self._result(stopped=True)
        return self._result(stopped=False)

    def _train(self, stop: StopRequest, progress: TrainingProgress) -> bool:
        """Goes on until the end, a signal (True), or harm, after which there may be more to do."""
        with closing(self._batches()) as batches:
            return self._steps(batches, stop, progress)

    def _steps(
        self,
        batches: Iterator[tuple[Tensor, Tensor | None]],
        stop: StopRequest,
        progress: TrainingProgress,
    ) -> bool:
        for x, cond in batches:
            before = self.stepper.images
            logs = _crossed(self.settings.log_every, before, before + len(x))
            report = self.stepper.step(x, cond, by_loss=logs)
            self._note(report)
            now, done = self.stepper.images, self.stepper.images >= self.total
            progress.update(now)
            if logs:
                row = self._log()
                progress.report(now, _line(row))
            if done or _crossed(self.settings.sample_every, before, now):
                self._sheet(f"{now:09}")
            checks = done or _crossed(self.settings.checkpoint_every, before, now)
            if checks and not self._checked(progress):
                return False
            if stop.requested:
                if self._find_harm() is None:
                    self._save()
                return True
        return False

    def _batches(self) -> Generator[tuple[Tensor, Tensor | None], None, None]:
        model = self.stepper.model
        loader = Loader(
            self.train,
            batch=self.settings.batch,
            seed=derive_seed(self.config.seed, "refine data"),
            flip=self.config.data.flip,
            workers=worker_count(self.config.data.workers, model.device),
        )
        seed = derive_seed(self.config.seed, "refine condition")
        left = loader.batches(self.stepper.images, self.total)
        with Prefetcher(left, model.device) as batches:
            for batch in batches:
                x = batch.images
                rng = make_rng(seed, batch.position, model.device)
                yield x, model.condition_of(x, batch.labels, batch.conditions, rng=rng)

    def _note(self, report: RefineReport) -> None:
        self.meter.add(skipped=float(report.skipped))
        if not report.skipped:
            values = asdict(report)
            del values["skipped"]
            by_loss = values.pop("grad_norms")
            values = {name: value for name, value in values.items() if value is not None}
            self.meter.add(**values, **{f"grad_norm_{n}": norm for n, norm in by_loss.items()})

    def _log(self) -> dict[str, Any]:
        stepper = self.stepper
        row = {"kind": "refine", "step": stepper.steps, "images": stepper.images}
        row |= {**self.meter.means(), "adversary": stepper.adversary}
        self.log.append(row)
        return row

    @contextmanager
    def _averaged(self) -> Iterator[HVAE]:
        """Lends the model with the averaged refiner."""
        model, refiner = self.stepper.model, self.stepper.refiner
        with self.stepper.ema.applied_to(refiner):
            model.refine_with(refiner.eval())
            try:
                yield model
            finally:
                model.refine_with(None)
                refiner.train()

    def _checked(self, progress: TrainingProgress) -> bool:
        """Saves what does no harm; otherwise goes back with half the adversary, and says so."""
        reason = self._find_harm()
        assert self.harm is not None
        row = {"kind": "harm", "step": self.stepper.steps, "images": self.stepper.images}
        self.log.append({**row, **self.harm.row(), "reason": reason})
        if reason is None:
            self._save()
            return True
        self._weaken(reason, progress)
        return False

    @cached_property
    def _unrefined(self) -> Quality:
        """The frozen model's, which no step changes."""
        return quality(self.stepper.model, self.held_out, self.config.seed, refined=False)

    def _find_harm(self) -> str | None:
        """Looks at the averaged refiner and the margin; returns what is worse than it may be."""
        with self._averaged() as model:
            self.harm = find_harm(model, self.held_out, self.config.seed, self._unrefined)
        found, margin = self.harm.beyond(self.settings.harm), self.stepper.margin
        if not abs(margin) <= self.settings.harm.margin:
            away = f"the discriminator has run away, its logits are {margin:.3g} apart"
            found = f"{found}; {away}" if found else away
        return found

    def _weaken(self, reason: str, progress: TrainingProgress) -> None:
        at, weakened = self.stepper.images, self.weakened + 1
        if weakened > self.settings.harm.most:
            raise TrainingError(
                f"refinement does harm after {at:,} images ({reason}), and went on doing so with "
                f"the adversary weakened {self.weakened} times. What was harmless is in "
                f"{self.folder}; begin anew without that folder and with a lower "
                "refine.weights.adversarial, refine.lr or refine.lr_discriminator"
            )
        adversary = self.stepper.adversary / 2
        latest = checkpoint.newest_complete(self.folder).checkpoint
        if latest is not None:
            self._restore(latest)
        else:
            self.stepper = self._begin(self.stepper.model)
            self.meter = Meter()
            self.log.cut_after(-1)
        self.stepper.adversary, self.weakened = adversary, weakened
        self.log.append(
            {
                "kind": "alarm",
                "step": self.stepper.steps,
                "images": self.stepper.images,
                "from_images": at,
                "reason": reason,
                "adversary": adversary,
            }
        )
        self._save()  # or the alarm would be forgotten by the next one, or by a kill
        progress.update(self.stepper.images)
        progress.say(
            f"harm after {at:,} images: {reason}. Back at {self.stepper.images:,} images with "
            f"{adversary:g} of the adversary's weight"
        )

    def _sheet(self, stem: str) -> None:
        """Samples, each unrefined and refined, of the same latents."""
        with self._averaged() as model:
            pairs = [
                model.sample(_SHEET, output="mean", seed=self.config.seed, refined=refined)
                for refined in (False, True)
            ]
        images = torch.stack(pairs, 1).flatten(0, 1)
        if images.ndim == 4:
            save_grid(images, self.folder / "samples" / f"samples-{stem}.png", columns=8)

    def _save(self) -> None:
        state = self._state()
        checkpoint.save(self.folder, self.stepper.steps, self.stepper.tensors(), state, keep_last=2)

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds beside tensors."""
        return {
            **self.stepper.state_dict(),
            "base": self.base,
            "weakened": self.weakened,
            "harm": None if self.harm is None else asdict(self.harm),
            "meter": self.meter.state_dict(),
            "log_rows": self.log.length,
            "config": self.settings.model_dump(mode="json"),
            "versions": {"hvae": __version__, "torch": torch.__version__},
        }

    def _restore(self, folder: Path) -> None:
        state = checkpoint.read_state(folder)
        if state.get("base") != self.base:
            raise UserError(
                f"{self.folder} refines other weights than this run has now; remove that folder to "
                "begin anew"
            )
        _check_same(self._settings_in(state), self.settings, self.folder)
        tensors = {}
        for stem in self.stepper.tensors():
            tensors[stem] = checkpoint.read_tensors(folder / f"{stem}.safetensors")
        self.stepper.load(tensors, state)
        self.meter.load_state_dict(state["meter"])
        self.weakened = state["weakened"]
        self.harm = None if state["harm"] is None else Harm(**state["harm"])
        self.log.cut_after(self.stepper.steps, state["log_rows"])

    @staticmethod
    def _settings_in(state: dict[str, Any]) -> dict[str, Any]:
        """The stage's settings in what `_state` returned."""
        return dict(state["config"])

    def _result(self, *, stopped: bool) -> RefineResult:
        return RefineResult(
            self.folder, self.stepper.images, self.harm, self.weakened, stopped, self.ended
        )


_FREE = {"images", "log_every", "sample_every", "checkpoint_every", "harm"}


def _check_same(saved: dict[str, Any], asked: RefineConfig, folder: Path) -> None:
    now = asked.model_dump(mode="json")
    differing = [
        f"refine.{key}={saved.get(key)} (now {now[key]})"
        for key in now
        if key not in _FREE and saved.get(key) != now[key]
    ]
    if differing:
        raise UserError(
            f"{folder}: this stage was begun with {'; '.join(differing)}. Use the same values to "
            "go on, or remove that folder to begin anew"
        )


def _maps(key: str, name: str | None, model: HVAE) -> FeatureMaps | None:
    """Opens the network that a key of the section names."""
    if name is None:
        return None
    if len(model.shape) != 3 or model.shape[0] not in (1, 3):
        raise UserError(
            f"refine.{key}: {name} sees grey and colour images, the model makes {model.shape}"
        )
    extractor = open_extractor(name, device=model.device)
    if not isinstance(extractor, NetworkExtractor):
        raise UserError(f"refine.{key}: wanted lite0, lite2 or inception, got {name}")
    return FeatureMaps(extractor.network, extractor.resolution, extractor.mean, extractor.std)


def _crossed(interval: int, before: int, now: int) -> bool:
    return now // interval > before // interval


def _line(row: dict[str, Any]) -> str:
    if "margin" not in row:
        return "no step was finite"
    return (
        f"margin {row['margin']:.2f}  D {row['discriminator']:.3f}  "
        f"adversarial {row['adversarial']:.3f}  L1 {row['l1']:.4f}"
    )
