"""One optimisation step, and everything that must be saved to take the next one alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from hvae.losses import SpectralPenalty, cyclical_ramp, linear_ramp, objective
from hvae.models import HVAE, Elbo
from hvae.ops.philox import derive_seed, make_rng
from hvae.training.accumulate import backward_in_parts, parts_of
from hvae.training.config import TrainConfig
from hvae.training.cuda_graph import GraphedBackward
from hvae.training.distributed import World
from hvae.training.ema import Ema
from hvae.training.guard import Guard, Verdict
from hvae.training.locate import Place, locate
from hvae.training.optim import (
    learning_rate,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
)
from hvae.training.precision import uses_bf16
from hvae.training.sharding import distribute, fill, held_back, part, whole


@dataclass(frozen=True)
class StepReport:
    """What a step did, as means over the examples of all processes."""

    objective: float  # nats per dimension
    nll: float  # nats per example
    kl: tuple[float, ...]  # nats per example, of each group
    spectral: float | None  # sum of largest singular values, where it is penalised
    lr: float
    beta: float
    free_bits: float
    grad_norm: float
    clip_norm: float
    skipped: bool


class Stepper:
    """Model, optimiser, average and guard of a run, advanced one batch at a time.

    The noise of an example is keyed by its place in the overall order of the run, so a step
    depends on what is saved here and on its batch alone. Of several processes each is given its
    block of the batch; all take the step of the whole batch.
    """

    def __init__(
        self, model: HVAE, config: TrainConfig, seed: int, world: World | None = None
    ) -> None:
        self.model = model
        self.world = world or World()
        forward = distribute(model, self.world, config.sharding)
        self.held_back = held_back(forward)
        self.config = config
        self.optimizer = make_optimizer(model, config)
        self.ema = Ema(model, config.ema)
        self.guard = Guard(config.guard)
        self.spectral = (
            SpectralPenalty(spectral_weights(model, config.objective.spectral_layers))
            if config.objective.spectral
            else None
        )
        self.noise_seed = derive_seed(seed, "train")
        self.bf16 = uses_bf16(config, model.device)
        if config.compile == "regional":
            model.compile_blocks()
        self.forward = cast(Any, torch.compile(forward) if config.compile is True else forward)
        self.graphed = GraphedBackward(list(model.parameters())) if config.cuda_graphs else None
        self.steps = 0
        self.images = 0

    def step(
        self, x: Tensor, cond: Tensor | None = None, *, total: int | None = None
    ) -> StepReport:
        """Takes one step on uint8 data (N, C, *S), and its conditions if the model takes any.

        Args:
            x: this process's block of the batch.
            cond: its conditions.
            total: images of the whole batch. None: N, for one process.

        Raises:
            Diverged: after too many non-finite steps in a row, or too many worse than noise.
        """
        total = len(x) if total is None else total
        self.steps += 1
        self.images += total
        lr = learning_rate(self.images, self.config) * self.guard.lr_scale
        beta, free_bits = self._objective_weights()
        elbo, loss, spectral = self._backward(_batch(x, cond), total)
        nats = [self.world.mean(each.detach(), total) for each in (elbo.nll, elbo.kl)]
        told = [loss.detach(), *nats, *([] if spectral is None else [spectral.detach()])]
        (value, nll, *rest), norm, verdict = self._update(lr, told)
        self.guard.watch(value / math.log(2), warm=self.images > self.config.warmup_images)
        groups = self.model.num_groups
        return StepReport(
            objective=value,
            nll=nll,
            kl=tuple(rest[:groups]),
            spectral=None if spectral is None else rest[groups],
            lr=lr,
            beta=beta,
            free_bits=free_bits,
            grad_norm=norm,
            clip_norm=verdict.threshold,
            skipped=verdict.skip,
        )

    def locate(self, x: Tensor, cond: Tensor | None = None, *, total: int | None = None) -> Place:
        """Returns where the batch of the last step goes wrong; arguments as those of `step`.

        Runs it again with the same noise, without torch.compile; only the gradients are lost.
        """
        batch, images = _batch(x, cond), len(x) if total is None else total
        with torch.compiler.set_stance("force_eager"):
            return locate(
                self.model, lambda: self._losses(self.model, batch, images, None), self.world
            )

    def _backward(
        self, batch: tuple[Tensor, ...], total: int
    ) -> tuple[Elbo, Tensor, Tensor | None]:
        """Adds the gradients of a step's objective; returns ELBO, objective and `self.spectral`."""
        if self.graphed is None and self.config.accumulate == 1:
            spectral = None if self.spectral is None else self.spectral()
            elbo, loss = self._losses(self.forward, batch, total, spectral)
            loss.backward()
            return elbo, loss, spectral
        if self.graphed is not None:
            elbo, loss = self._replayed(self.graphed, batch, total)
        else:
            elbo, loss = backward_in_parts(
                lambda part, place: self._elbo(self.forward, part, self._noise(place)),
                lambda elbo: self._objective(elbo, total, self._objective_weights()),
                parts_of(batch, self._first(total), self.config.accumulate),
                separable=self._objective_weights()[1] == 0,
                held_back=self.held_back,
            )
        if self.spectral is None:
            return elbo, loss, None
        # Not before: recording must not meet gradient nodes that were made outside of it.
        spectral = self.spectral()
        penalty = self._penalty(spectral)
        penalty.backward()
        return elbo, loss + penalty.detach(), spectral

    def _replayed(
        self, graphed: GraphedBackward, batch: tuple[Tensor, ...], total: int
    ) -> tuple[Elbo, Tensor]:
        noise = self._noise(self._first(total))
        weights = torch.tensor(self._objective_weights(), dtype=torch.float64, device=noise.device)
        *elbo, loss = graphed(self._backward_of, *batch, noise, weights)
        return Elbo(*elbo), loss

    def _backward_of(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Adds the gradients of a batch, given as tensors all that changes from step to step.

        Args:
            inputs: the batch, the noise state, and beta and free nats in one tensor.

        Returns:
            The fields of its ELBO and its objective, without gradients.
        """
        *batch, noise, weights = inputs
        elbo = self._elbo(self.forward, tuple(batch), noise)
        loss = self._objective(elbo, len(batch[0]), weights.unbind())
        loss.backward()
        return tuple(each.detach() for each in (*elbo, loss))

    def _losses(
        self, forward: Any, batch: tuple[Tensor, ...], total: int, spectral: Tensor | None
    ) -> tuple[Elbo, Tensor]:
        """ELBO of these examples, and objective of the `total` last ones of the run's order."""
        elbo = self._elbo(forward, batch, self._noise(self._first(total)))
        loss = self._objective(elbo, total, self._objective_weights())
        return elbo, loss if spectral is None else loss + self._penalty(spectral)

    def _first(self, total: int) -> int:
        """The place, in the run's order, of the first of this process's examples."""
        return self.images - total + self.world.block(total).start

    def _noise(self, first: int) -> Tensor:
        """The noise state of examples from this place on."""
        return make_rng(self.noise_seed, first, self.model.device)

    def _elbo(self, forward: Any, batch: tuple[Tensor, ...], noise: Tensor) -> Elbo:
        with torch.autocast(noise.device.type, torch.bfloat16, enabled=self.bf16):
            elbo: Elbo = forward(*batch, rng=noise)
        return elbo

    def _objective(self, elbo: Elbo, total: int, weights: Sequence[float | Tensor]) -> Tensor:
        """The objective of a batch of `total` examples, or the part that these have in it."""
        beta, free_bits = weights
        return objective(
            elbo,
            self.model.num_dims,
            beta=beta,
            free_bits=free_bits,
            kl_share=self.config.objective.kl_share,
            mean=partial(self.world.mean, total=total),
        )

    def _penalty(self, spectral: Tensor) -> Tensor:
        return spectral * (self.config.objective.spectral / self.model.num_dims)

    def _objective_weights(self) -> tuple[float, float]:
        """Returns beta and the free nats of each group at this point of the run."""
        config, total = self.config.objective, self.config.images
        warmup, cooled = config.kl_warmup_images, config.free_bits_images
        warmup = total // 20 if warmup is None else warmup
        cooled = total // 2 if cooled is None else cooled
        free = config.free_bits * (1 - linear_ramp(self.images, cooled))
        nats = free * self.model.num_dims / self.model.num_groups
        if config.kl_schedule == "constant":
            ramp = 1.0
        elif config.kl_schedule == "cyclical":
            ramp = cyclical_ramp(self.images, total, config.kl_cycles, config.kl_cycle_rise)
        else:
            ramp = linear_ramp(self.images, warmup)
        return config.beta * ramp, nats

    def _update(self, lr: float, told: list[Tensor]) -> tuple[list[float], float, Verdict]:
        """Takes the step unless the guard refuses.

        Args:
            lr: learning rate.
            told: the objective, and what else a report wants to know, scalars or vectors.

        Returns:
            The numbers of `told`, the norm of the gradient, and the verdict on it.
        """
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        gradients = [cast(Tensor, p.grad) for p in parameters]
        total = whole(torch.nn.utils.get_total_norm(gradients))
        flat = torch.cat([value.reshape(-1).to(told[0].dtype) for value in (total, *told)])
        norm, *numbers = self.world.same(flat).tolist()  # one wait for the device
        if not math.isfinite(numbers[0]):
            norm = math.nan  # it may have a finite gradient, which means nothing
        verdict = self.guard.judge(norm)
        if verdict.scale is not None:
            if verdict.scale < 1:
                torch._foreach_mul_(gradients, verdict.scale)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
            self.ema.update(self.model)
        self.optimizer.zero_grad()
        return numbers, norm, verdict

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Returns the tensors of a checkpoint, by file."""
        return {
            "model": dict(self.model.state_dict()),
            "ema": self.ema.tensors,
            "optim": optimizer_tensors(self.model, self.optimizer),
            **({} if self.spectral is None else {"spectral": self.spectral.tensors()}),
        }

    def nonfinite_tensor(self) -> str | None:
        """Returns the name of a tensor of `tensors` that is not finite in any process, or None."""
        names = (
            f"{file}: {name}"
            for file, named in self.tensors().items()
            for name, tensor in named.items()
            if not part(tensor).isfinite().all()
        )
        return next(filter(None, self.world.gather(next(names, None))), None)

    def state_dict(self) -> dict[str, Any]:
        """Returns the rest of a checkpoint as JSON values."""
        return {
            "step": self.steps,
            "images": self.images,
            "ema_updates": self.ema.updates,
            "guard": self.guard.state_dict(),
        }

    def load(self, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        """Restores what `tensors` and `state_dict` returned."""
        for name, tensor in self.model.state_dict().items():
            fill(tensor, tensors["model"][name])
        self.ema.load(tensors["ema"], state["ema_updates"])
        self.optimizer.state.clear()  # what is loaded may have no moments yet
        load_optimizer_tensors(self.model, self.optimizer, tensors["optim"])
        if self.spectral is not None:
            self.spectral.load(tensors["spectral"])
        self.optimizer.zero_grad()  # of a step that did not end
        self.guard.load_state_dict(state["guard"])
        self.steps, self.images = state["step"], state["images"]


def _batch(x: Tensor, cond: Tensor | None) -> tuple[Tensor, ...]:
    """What the model is called with."""
    return (x,) if cond is None else (x, cond)


def spectral_weights(model: HVAE, layers: str) -> dict[str, nn.Parameter]:
    """Returns the convolution weights that are penalised, by name: of the "heads", or "all"."""
    heads = (".posterior.c4.weight", ".prior.c4.weight")
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.endswith(heads if layers == "heads" else ".weight")
    }
