"""What goes down the ladder with each latent group, and what a pass leaves."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from hvae.models.refiner import Injector


class Guidance(NamedTuple):
    """Weights of the conditional prior: 0 is the unconditional one, 1 the conditional one.

    name  meaning
    mean  of the means
    std   of the logarithms of the standard deviations
    """

    mean: float
    std: float


@dataclass(frozen=True)
class Draw:
    """Where the latent of one group comes from: given `z`, else posterior, else prior.

    name         meaning
    rng, stream  noise of the group, see `hvae.ops.philox`
    feature      (N, width, *S) activated encoder features; without them the prior is drawn from
    z            (N, Z, *S) a latent that is given
    eps          (N, Z, *S) noise instead of the generated one
    temperature  scale of the prior's standard deviation
    cond         (N, E, *S or *1) embedded condition, of a conditional model
    guidance     weights of a prior draw; then the second half of the N rows is the first half
                 without its condition, and both take one latent
    inject       correction of the state before a prior draw, see `hvae.models.refiner`
    """

    rng: Tensor
    stream: int
    feature: Tensor | None = None
    z: Tensor | None = None
    eps: Tensor | None = None
    temperature: float = 1.0
    cond: Tensor | None = None
    guidance: Guidance | None = None
    inject: Injector | None = None


class Outcome(NamedTuple):
    """What one group leaves.

    name       meaning
    x          (N, width, *S) the next state
    z          (N, Z, *S) the latent
    kl         (N,) KL(q || p) in nats, if it was drawn from the posterior
    log_ratio  (N,) ln p(z) - ln q(z), if it was asked for
    """

    x: Tensor
    z: Tensor
    kl: Tensor | None
    log_ratio: Tensor | None


@dataclass
class Ladder:
    """What a pass down the ladder leaves, per group from coarse to fine.

    name        meaning
    latents     (N, Z, *S), of every group
    kl          (N,) KL(q || p) in nats, of groups drawn from the posterior
    log_ratios  (N,) ln p(z) - ln q(z) at the draw, float64, when asked for
    state       (N, width, *S) what the head reads
    states      (N, width, *S) the last ones, by resolution, where a refiner reads them
    """

    latents: list[Tensor] = field(default_factory=list)
    kl: list[Tensor] = field(default_factory=list)
    log_ratios: list[Tensor] = field(default_factory=list)
    state: Tensor = field(default_factory=lambda: torch.empty(0))
    states: dict[int, Tensor] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Takes in what the next group left."""
        self.latents.append(outcome.z)
        if outcome.kl is not None:
            self.kl.append(outcome.kl)
        if outcome.log_ratio is not None:
            self.log_ratios.append(outcome.log_ratio)
