"""The stage after refinement: the prior and the path down the ladder join, within a budget.

    RUN/prior/config.yaml  metrics.jsonl  samples/  checkpoints/step-<n>/{ema,model,...}.safetensors
    RUN/prior/refine/      the refiner, as it was trained along with them

A run of its own, since its model is another one with other bits/dim; the refined run is only read.
The encoder, and with it what each latent says, stays as it was:

    L = -ELBO / D + alpha L_adv        alpha from 0 to refine.prior.adversarial; samples alone

for the model, and the losses of refinement for refiner and discriminator, which go on. The stage
ends, with what was saved before, when bits/dim of test images have risen by more than the budget.
"""

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hvae import checkpoint
from hvae.checkpoint.refined import AVERAGE
from hvae.errors import UserError
from hvae.files import sha256
from hvae.losses.perceptual import Perceptual
from hvae.metrics import evaluate_likelihood
from hvae.models import HVAE
from hvae.nn.feature_maps import FeatureMaps
from hvae.ops.philox import derive_seed, make_rng
from hvae.training.ema import Ema
from hvae.training.harm import Quality, quality
from hvae.training.optim import load_optimizer_tensors, optimizer_tensors
from hvae.training.progress import TrainingProgress
from hvae.training.refine_config import RefineConfig
from hvae.training.refine_step import RefineReport, RefineStepper
from hvae.training.refinement import Refinement


class PriorStepper(RefineStepper):
    """Steps that also move the model's path down the ladder, less the posteriors.

    Args:
        as `RefineStepper`; the model is changed.
    """

    def __init__(
        self,
        model: HVAE,
        config: RefineConfig,
        seed: int,
        perceptual: Perceptual | None = None,
        *,
        maps: FeatureMaps | None = None,
        bf16: bool = False,
    ) -> None:
        super().__init__(model, config, seed, perceptual, maps=maps, bf16=bf16)
        named = model.decoder.named_parameters()
        self.trained = {n: p.requires_grad_() for n, p in named if ".posterior." not in n}
        self.optimizer = torch.optim.Adam(
            self.trained.values(), lr=config.prior.lr, betas=(0.9, 0.99), foreach=True
        )
        self.average = Ema(model.decoder, config.prior.ema)
        self.elbo_seed = derive_seed(seed, "refine elbo")

    def step(self, x: Tensor, cond: Tensor | None = None, *, by_loss: bool = False) -> RefineReport:
        """Takes a step of each network; see `RefineStepper.step`.

        The report's `bits_per_dim` is of this batch, before the step.
        """
        first = self.images
        self.optimizer.zero_grad()
        report = super().step(x, cond, by_loss=by_loss)
        weight = self.config.weights.adversarial * self.adversary
        ramp = self.config.prior.ramp * self.config.images
        alpha = self.config.prior.adversarial * (min(1.0, self.images / ramp) if ramp else 1.0)
        for parameter in self.trained.values():  # they have the gradient of the weighed L_adv
            if parameter.grad is not None:
                parameter.grad.mul_(alpha / weight if weight else 0.0)
        with self._format():
            elbo = self.model(x, cond, rng=make_rng(self.elbo_seed, first, x.device)).elbo
        loss = -elbo.mean() / self.model.num_dims
        loss.backward()
        gradients = [p.grad for p in self.trained.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        finite = bool((norm.isfinite() & loss.isfinite()).item()) and not report.skipped
        if finite:
            self.optimizer.step()
            self.average.update(self.model.decoder)
        return replace(report, bits_per_dim=loss.item() / math.log(2), skipped=not finite)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Returns the tensors of a checkpoint, by file; "ema" and "model" are those of a model."""
        found = super().tensors()
        weights = dict(self.model.state_dict())
        averaged = {f"decoder.{name}": t for name, t in self.average.tensors.items()}
        return {
            **found,
            "refiner_ema": found["ema"],
            "model": weights,
            "ema": weights | averaged,
            "optim_prior": optimizer_tensors(self.model.decoder, self.optimizer),
        }

    def state_dict(self) -> dict[str, float]:
        """Returns the rest of a checkpoint as JSON values."""
        return {**super().state_dict(), "average_updates": self.average.updates}

    def load(self, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        """Restores what `tensors` and `state_dict` returned."""
        super().load({**tensors, "ema": tensors["refiner_ema"]}, state)
        self.model.load_state_dict(tensors["model"])
        averaged = {n: tensors["ema"][f"decoder.{n}"] for n in self.average.tensors}
        self.average.load(averaged, state["average_updates"])
        self.optimizer.state.clear()
        load_optimizer_tensors(self.model.decoder, self.optimizer, tensors["optim_prior"])

    def follow(self, refined: dict[str, dict[str, Tensor]]) -> None:
        """Takes over refiner and discriminator of a refinement that has ended."""
        self.refiner.load_state_dict(refined["ema"])
        self.discriminator.load_state_dict(refined["discriminator"])
        self.ema.load(refined["ema"], 0)


class PriorRefinement(Refinement):
    """The stage in a run folder of its own."""

    @staticmethod
    def folder_of(run: Path) -> Path:
        """Returns the stage's folder in a run."""
        return run / checkpoint.PRIOR

    def _begin(self, model: HVAE) -> PriorStepper:
        config = self.run / "config.yaml"
        shutil.copyfile(config, self.folder / config.name)
        fresh = checkpoint.load_weights(self.weights, device=model.device)
        stepper = self._make(PriorStepper, fresh, derive_seed(self.config.seed, "prior"))
        stepper.follow(self._refined)
        return stepper

    @cached_property
    def _refined(self) -> dict[str, dict[str, Tensor]]:
        """What refinement left behind."""
        folder = self.run / checkpoint.REFINE
        found = checkpoint.newest_complete(folder)
        if found.checkpoint is None:
            raise UserError(f"{self.run}: refine it first, without refine.unfreeze=prior; {found}")
        state = checkpoint.read_state(found.checkpoint)
        if state.get("base") != self.base:
            raise UserError(f"{folder} refines other weights than this run has now; refine it anew")
        return {
            stem: checkpoint.read_tensors(found.checkpoint / f"{stem}.safetensors")
            for stem in ("ema", "discriminator")
        }

    @cached_property
    def _original(self) -> tuple[Quality, float]:
        """Quality and bits/dim of the model that the stage began with."""
        model = checkpoint.load_weights(self.weights, device=self.stepper.model.device)
        before = quality(model, self.held_out, self.config.seed, refined=False)
        return before, self._bits_per_dim(model)

    @cached_property
    def _unrefined(self) -> Quality:
        return self._original[0]

    def _bits_per_dim(self, model: HVAE) -> float:
        result = evaluate_likelihood(
            model, self.test, images=len(self.held_out), seed=self.config.seed
        )
        return result.elbo_bits_per_dim

    @contextmanager
    def _averaged(self) -> Iterator[HVAE]:
        stepper = self.stepper
        assert isinstance(stepper, PriorStepper)
        with stepper.average.applied_to(stepper.model.decoder), super()._averaged() as model:
            yield model

    def _checked(self, progress: TrainingProgress) -> bool:
        """Ends the stage where the budget is spent, and saves otherwise; see `Refinement`."""
        with self._averaged() as model:
            now = self._bits_per_dim(model)
        before = self._original[1]
        row = {"kind": "budget", "step": self.stepper.steps, "images": self.stepper.images}
        self.log.append({**row, "bits_per_dim": now, "bits_per_dim_before": before})
        if now - before > self.settings.prior.budget * abs(before):
            self.ended = (
                f"{now:.4f} bits/dim after {self.stepper.images:,} images, {before:.4f} before: "
                f"more than refine.prior.budget={self.settings.prior.budget:g} allows"
            )
            return False
        return super()._checked(progress)

    def _save(self) -> None:
        super()._save()
        weights = checkpoint.newest_complete(self.folder, only=(AVERAGE,)).checkpoint
        assert weights is not None
        state = {"base": sha256(weights / AVERAGE), "config": super()._state()["config"]}
        tensors = {"ema": self.stepper.ema.tensors}
        refined = self.folder / checkpoint.REFINE
        checkpoint.save(refined, self.stepper.steps, tensors, state, keep_last=2)

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "config": self.config.model_dump(mode="json")}

    @staticmethod
    def _settings_in(state: dict[str, Any]) -> dict[str, Any]:
        return dict(state["config"]["refine"])
