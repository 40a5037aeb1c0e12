"""One step of a refiner and its discriminator on a frozen model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hvae.errors import UserError
from hvae.losses.adversarial import (
    discriminator_loss,
    feature_matching,
    generator_loss,
    gradient_penalty,
    lecam,
    low_pass,
)
from hvae.losses.augment import augment
from hvae.losses.perceptual import Perceptual
from hvae.losses.schedule import cosine_decay
from hvae.models import HVAE
from hvae.models.discriminator import Discriminator
from hvae.models.refiner import Refiner
from hvae.nn.feature_maps import FeatureMaps
from hvae.ops.philox import DEQUANTISATION_STREAM, derive_seed, make_rng, philox_uniform
from hvae.training.ema import Ema
from hvae.training.optim import load_optimizer_tensors, optimizer_tensors
from hvae.training.recovery import Diverged
from hvae.training.refine_config import RefineConfig

MOST_NONFINITE = 10  # steps in a row
_OF_REBUILT = ("l1", "features", "lowpass", "perceptual")
_AVERAGING = 0.99  # of the logits that `lecam` goes by, and the margin
_GAMMA_STEP, _GAMMA_RANGE = 1.01, 1000.0  # gamma doubles in 70 steps


@dataclass(frozen=True, kw_only=True)
class RefineReport:
    """What a step did; losses before their weights."""

    discriminator: float
    margin: float  # mean of D(x) - D(x~): far above 2 the discriminator wins, near 0 it is blind
    penalty_real: float | None = None  # E |grad D|^2 at real images, if this step had penalties
    penalty_fake: float | None = None
    adversarial: float
    l1: float
    features: float
    lowpass: float
    perceptual: float  # 0 without a network to look through
    grad_norm: float  # of the refiner
    grad_norm_discriminator: float
    lr: float
    gamma: float
    skipped: bool  # something was not finite
    grad_norms: Mapping[str, float]  # of the refiner, by weighed loss, where that was asked for
    bits_per_dim: float | None = None  # of a model that is trained along


class RefineStepper:
    """Refiner, discriminator, their optimisers and the refiner's average, one batch at a time.

    The model is frozen: no gradient reaches it, and nothing here writes to it. Noise is keyed by
    the place of an image in the stage, so that a step depends on what is saved here and on its
    batch alone.

    Args:
        model: the trained model, in evaluation mode.
        config: of the stage.
        seed: of initial weights and noise.
        perceptual: compares reconstructions with their images, if it is there.
        maps: what the discriminator looks through, if `discriminator.features` names a network.
        bf16: convolutions run in bfloat16, but for the discriminator's in steps with penalties,
            whose second derivatives are float32. So are logits, losses and weights.

    Raises:
        UserError: reconstructions alone are to be judged, and nothing changes them.
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
        if config.judged == "reconstructions" and not config.refiner.output:
            raise UserError(
                "refine.judged=reconstructions: without refine.refiner.output they stay as they are"
            )
        self.model = model.requires_grad_(False)
        self.config, self.perceptual, self.bf16 = config, perceptual, bf16
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "refine weights"))
            self.refiner = Refiner(config.refiner, model.config).to(model.device)
            self.discriminator = Discriminator(config.discriminator, model, maps).to(model.device)
        self.ema = Ema(self.refiner, config.ema)
        self.optimizers = {
            "refiner": _adam(self.refiner, config.lr),
            "discriminator": _adam(self.discriminator, config.lr_discriminator),
        }
        self.noise_seed = derive_seed(seed, "refine")
        self.augment_seed = derive_seed(seed, "refine augment")
        self.averages = torch.zeros(2, device=model.device)  # of logits: real, fake
        self.steps = self.images = self.nonfinite_in_row = 0
        self.gamma_scale, self.mean_margin = 1.0, 0.0
        self.adversary = 1.0  # what the weight of the adversarial loss is multiplied with

    def step(self, x: Tensor, cond: Tensor | None = None, *, by_loss: bool = False) -> RefineReport:
        """Takes a step of the discriminator and one of the refiner.

        Args:
            x: uint8 (N, C, *S), N at least 2. The first half is reconstructed, as many samples as
                the rest stand against the rest; all are, where the output is not refined and
                reconstructions stay what they are.
            cond: (N, ...) conditions, of a conditional model.
            by_loss: also tell the gradient's norm of each of the refiner's losses, which takes a
                backward pass each and changes nothing.

        Raises:
            Diverged: after ten steps in a row that were not finite.
        """
        if len(x) < 2:
            raise ValueError(f"wanted at least 2 images a step, got {len(x)}")
        first, config = self.images, self.config
        self.steps += 1
        self.images += len(x)
        decay = cosine_decay(self.images, config.images, config.lr_final)
        gamma = config.gamma_at(min(self.model.shape[1:]))
        gamma *= self.gamma_scale * cosine_decay(
            self.images, config.images // 2, config.gamma_final
        )
        real = self._real(x, first)
        fake, unrefined = self._fake(x, cond, first)
        looked = self._look(real, fake)
        told_d, finite_d, norm_d = self._judge(real, fake.detach(), looked, gamma, decay)
        losses = self._losses(real, fake, looked, unrefined)
        grad_norms = self._norms(losses) if by_loss else {}
        told_g, finite_g, norm_g = self._refine(losses, decay)
        self._count(finite_d and finite_g)
        self._adapt(told_d["margin"])
        return RefineReport(
            **told_d,
            **told_g,
            grad_norm=norm_g,
            grad_norm_discriminator=norm_d,
            lr=config.lr * decay,
            gamma=gamma,
            skipped=not (finite_d and finite_g),
            grad_norms=grad_norms,
        )

    @property
    def margin(self) -> float:
        """Mean of D(x) - D(x~) over the last hundred steps or so."""
        return self.mean_margin / (1 - _AVERAGING**self.steps)

    def _adapt(self, margin: float) -> None:
        """Weighs the penalties more while the discriminator is too far ahead, and less if not."""
        if math.isfinite(margin):
            self.mean_margin += (1 - _AVERAGING) * (margin - self.mean_margin)
        wanted = self.config.margin
        if wanted is None:
            return
        factor = _GAMMA_STEP if self.margin > wanted else 1 / _GAMMA_STEP
        self.gamma_scale = min(max(self.gamma_scale * factor, 1 / _GAMMA_RANGE), _GAMMA_RANGE)

    def _real(self, x: Tensor, first: int) -> Tensor:
        """Images in [-1, 1], spread over their levels, whose grid would give fakes away."""
        per_image = x[0].numel()
        rng = make_rng(self.noise_seed, first, x.device)
        spread = philox_uniform(rng, DEQUANTISATION_STREAM, (per_image + 3) // 4, len(x))
        spread = spread.flatten(1)[:, :per_image].view(x.shape) - 0.5
        return (x.float() + spread) / 127.5 - 1

    def _fake(self, x: Tensor, cond: Tensor | None, first: int) -> tuple[Tensor, Tensor]:
        """Reconstructions of the first half and samples for the other, in [-1, 1].

        Also what they were before the output was refined, without a gradient.
        """
        model, half = self.model, self._rebuilt(len(x))
        unrefined, refined = [], []
        if half:
            rng = make_rng(self.noise_seed, first, x.device)
            with torch.no_grad(), self._format():
                given = model.encoder(model.likelihood.network_input(x[:half]))
                maps = model.maps(None if cond is None else cond[:half], half)
                passed = model.decoder(half, rng, features=given, cond=maps, refiner=self.refiner)
                unrefined.append(model.image(passed))
            # A region of its own: one for both paths casts weights once, with other gradients.
            with self._format():
                refined.append(self.refiner.image(unrefined[0], passed.states))
        count = len(x) - half
        with self._format():
            prior = model.decoder(
                count,
                make_rng(self.noise_seed, first + half, x.device),
                temperature=[self._temperature()] * model.num_groups,
                cond=model.maps(None if cond is None else cond[half:], count),
                refiner=self.refiner,
            )
            drawn = model.image(prior)
            unrefined.append(drawn.detach())
            refined.append(self.refiner.image(drawn, prior.states))
        return torch.cat(refined) / 127.5 - 1, torch.cat(unrefined) / 127.5 - 1

    def _format(self, exact: bool = False) -> torch.autocast:
        """Convolutions in the stage's number format; `exact`: in float32 all the same."""
        return torch.autocast(
            self.model.device.type, torch.bfloat16, enabled=self.bf16 and not exact
        )

    def _rebuilt(self, count: int) -> int:
        """How many rows of a batch are reconstructed."""
        return (count + 1) // 2 if self.config.refiner.output else 0

    def _judged(self, count: int) -> slice:
        """Rows of a batch that the discriminator is to tell apart."""
        half = self._rebuilt(count)
        rows = {"both": (0, count), "reconstructions": (0, half), "samples": (half, count)}
        return slice(*rows[self.config.judged])

    def _seen(self, images: Tensor, skipped: int = 0) -> Tensor:
        """What the discriminator sees of a batch's rows, less the first few; pairs change alike."""
        share = min(1.0, 2 * self.images / self.config.images)
        first = self.steps * self.config.batch + skipped
        rng = make_rng(self.augment_seed, first, images.device)
        return augment(images, share * self.config.augment, rng)

    def _look(self, real: Tensor, fake: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """A frozen network's maps of both, if there is one; those of made images with a graph."""
        with self._format():
            with torch.no_grad():
                of_real = self.discriminator.look(self._seen(real))
            return of_real, self.discriminator.look(self._seen(fake))

    def _temperature(self) -> float:
        low, high = self.config.temperatures
        return (
            low + (high - low) * derive_seed(self.noise_seed, f"temperature {self.steps}") / 2**63
        )

    def _judge(
        self,
        real: Tensor,
        fake: Tensor,
        looked: tuple[list[Tensor], list[Tensor]],
        gamma: float,
        decay: float,
    ) -> tuple[dict[str, float], bool, float]:
        """The discriminator's step."""
        config, network = self.config, self.discriminator.requires_grad_(True)
        rows = self._judged(len(real))
        penalised = (self.steps - 1) % config.penalty_every == 0 and gamma > 0

        def leaf(x: Tensor) -> Tensor:
            return x[rows].detach().to(real.dtype).requires_grad_(penalised)

        maps_real, maps_fake = ([leaf(each) for each in maps] for maps in looked)
        real, fake = leaf(real), leaf(fake)
        with self._format(exact=penalised):
            on_real = network(self._seen(real, rows.start), maps_real)
            on_fake = network(self._seen(fake, rows.start), maps_fake)
        loss = discriminator_loss(on_real, on_fake, config.pairing)
        total = loss
        told = {"discriminator": loss, "margin": (on_real - on_fake).mean()}
        if penalised:
            told["penalty_real"] = gradient_penalty(real, on_real, maps_real)
            told["penalty_fake"] = gradient_penalty(fake, on_fake, maps_fake)
            penalty = told["penalty_real"] + told["penalty_fake"]
            total = total + gamma / 2 * config.penalty_every * penalty
        if config.lecam:
            total = total + config.lecam * lecam(on_real, on_fake, *self.averages)
        means = torch.stack([on_real.detach().mean(), on_fake.detach().mean()])
        means = torch.where(means.isfinite(), means, self.averages)
        self.averages.lerp_(means, 1 - _AVERAGING)
        return self._take("discriminator", network, total, told, decay)

    def _losses(
        self,
        real: Tensor,
        fake: Tensor,
        looked: tuple[list[Tensor], list[Tensor]],
        unrefined: Tensor,
    ) -> dict[str, Tensor]:
        """What the refiner minimises, before weights, by the discriminator as it is now."""
        half, seen = self._rebuilt(len(real)), self._judged(len(real))
        network = self.discriminator.requires_grad_(False)
        with self._format():
            with torch.no_grad():
                on_real, wanted = network.judge(self._seen(real), looked[0])
            on_fake, features = network.judge(self._seen(fake), looked[1])
        adversarial = generator_loss(on_real[seen], on_fake[seen], self.config.pairing)
        losses = {"adversarial": adversarial, **dict.fromkeys(_OF_REBUILT, fake.new_zeros(()))}
        if half:
            made, known = ([maps[:half] for maps in each] for each in (features, wanted))
            losses["l1"] = F.l1_loss(fake[:half], real[:half])
            losses["features"] = feature_matching(made, known)
            losses["lowpass"] = self._moved(real, fake, unrefined, half)
            if self.perceptual is not None:
                losses["perceptual"] = self.perceptual(fake[:half], real[:half])
        return losses

    def _weighed(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        scales = {"adversarial": self.adversary}
        weights = self.config.weights
        return {n: scales.get(n, 1.0) * getattr(weights, n) * v for n, v in losses.items()}

    def _norms(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """The norm of the gradient of each weighed loss."""
        parameters, norms = list(self.refiner.parameters()), {}
        for name, loss in self._weighed(losses).items():
            found: Sequence[Tensor | None] = ()
            if loss.requires_grad:
                found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            norms[name] = torch.nn.utils.get_total_norm([g for g in found if g is not None]).item()
        return norms

    def _refine(
        self, losses: dict[str, Tensor], decay: float
    ) -> tuple[dict[str, float], bool, float]:
        """The refiner's step."""
        total = sum(self._weighed(losses).values())
        found = self._take("refiner", self.refiner, total, losses, decay)
        if found[1]:
            self.ema.update(self.refiner)
        return found

    def _moved(self, real: Tensor, fake: Tensor, unrefined: Tensor, half: int) -> Tensor:
        """How far content and colour have gone from where they should be."""
        if min(real.shape[2:]) < 4:
            return fake.new_zeros(())
        moved = low_pass(fake[:half], real[:half])
        if self.config.refiner.injectors:  # which are there to move the content of samples
            return moved
        return moved + low_pass(fake[half:], unrefined[half:])

    def _take(
        self, name: str, network: nn.Module, loss: Any, told: dict[str, Tensor], decay: float
    ) -> tuple[dict[str, float], bool, float]:
        """Steps on a loss if it and its gradient are finite; returns numbers, whether, and norm."""
        optimizer = self.optimizers[name]
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.get_total_norm(
            [p.grad for p in network.parameters() if p.grad is not None]
        )
        values = torch.stack([norm, loss.detach(), *(v.detach() for v in told.values())])
        size, total, *numbers = values.tolist()  # one wait for the device
        finite = torch.tensor([size, total]).isfinite().all().item()
        if finite:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * decay
            optimizer.step()
        optimizer.zero_grad()
        return dict(zip(told, numbers, strict=True)), bool(finite), size

    def _count(self, finite: bool) -> None:
        self.nonfinite_in_row = 0 if finite else self.nonfinite_in_row + 1
        if self.nonfinite_in_row >= MOST_NONFINITE:
            raise Diverged(
                f"{self.nonfinite_in_row} refinement steps in a row had a loss or gradient that is "
                "not finite"
            )

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Returns the tensors of a checkpoint, by file."""
        return {
            "refiner": dict(self.refiner.state_dict()),
            "ema": self.ema.tensors,
            "discriminator": dict(self.discriminator.state_dict()),
            "optim": optimizer_tensors(self.refiner, self.optimizers["refiner"]),
            "optim_discriminator": optimizer_tensors(
                self.discriminator, self.optimizers["discriminator"]
            ),
            "averages": {"logits": self.averages},
        }

    def state_dict(self) -> dict[str, float]:
        """Returns the rest of a checkpoint as JSON values."""
        return {
            "step": self.steps,
            "images": self.images,
            "ema_updates": self.ema.updates,
            "nonfinite_in_row": self.nonfinite_in_row,
            "adversary": self.adversary,
            "gamma_scale": self.gamma_scale,
            "mean_margin": self.mean_margin,
        }

    def load(self, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        """Restores what `tensors` and `state_dict` returned."""
        self.refiner.load_state_dict(tensors["refiner"])
        self.discriminator.load_state_dict(tensors["discriminator"])
        self.ema.load(tensors["ema"], state["ema_updates"])
        self.averages.copy_(tensors["averages"]["logits"])
        for name, module, file in (
            ("refiner", self.refiner, "optim"),
            ("discriminator", self.discriminator, "optim_discriminator"),
        ):
            self.optimizers[name].state.clear()
            load_optimizer_tensors(module, self.optimizers[name], tensors[file])
        self.steps, self.images = state["step"], state["images"]
        self.nonfinite_in_row, self.adversary = state["nonfinite_in_row"], state["adversary"]
        self.gamma_scale, self.mean_margin = state["gamma_scale"], state["mean_margin"]


def _adam(network: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Adam without a first moment, as both networks chase each other (R3GAN's betas)."""
    groups = [{"params": list(network.parameters()), "initial_lr": lr}]
    return torch.optim.Adam(groups, lr=lr, betas=(0.0, 0.99), foreach=True)
