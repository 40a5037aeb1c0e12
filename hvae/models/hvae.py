"""The hierarchical VAE: encoder, ladder and likelihood behind training and use."""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from hvae.distributions import Distribution, make_likelihood
from hvae.errors import UserError
from hvae.models.condition import Condition, Conditioner, condition_of
from hvae.models.config import ModelConfig
from hvae.models.decoder import Decoder
from hvae.models.encoder import Encoder
from hvae.models.ladder import Ladder
from hvae.models.layout import Layout
from hvae.models.recompute import Recompute, recomputed
from hvae.models.refiner import Refiner
from hvae.models.sampling import (
    CHUNK,
    Request,
    draw,
    guidance_of,
    latents_of,
    temperatures_of,
)
from hvae.nn import regional
from hvae.nn.block import Bottleneck
from hvae.nn.conv import CONVS
from hvae.ops.philox import derive_seed, make_rng

_NO_CONDITION = "this model takes no condition; leave cond out"

Latents: TypeAlias = tuple[Tensor, ...]


class Elbo(NamedTuple):
    """The evidence lower bound of N examples, from one posterior draw each.

    nll           (N,) -ln p(x | z), nats
    kl            (N, L) KL(q || p) of each latent group, coarse to fine, nats
    elbo          (N,) -(nll + sum of kl), nats
    bits_per_dim  (N,) -elbo / (ln 2 x data dimensions)
    """

    nll: Tensor
    kl: Tensor
    elbo: Tensor
    bits_per_dim: Tensor


class HVAE(nn.Module):
    """A hierarchical variational autoencoder over uint8 data (N, C, *S).

    With `condition.kind` set it is also told something about each example, in the forms that
    `hvae.models.condition` lists; without a condition it is the unconditional model then.

    Raises:
        UserError: if size or channels are unset, or the layout does not fit them.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        layout = Layout.parse(config)
        if config.channels is None or config.size is None:
            raise UserError("model.channels is not set; give it, or data.channels")
        if config.width_at(layout.finest) != config.width:
            raise UserError(
                f"model.widths: the finest resolution {layout.finest} must have model.width "
                f"{config.width}, got {config.width_at(layout.finest)}"
            )
        self.config = config
        self.shape = (config.channels, *config.size)
        self.num_groups = len(layout.decoder)
        self.likelihood = make_likelihood(config.likelihood, config.channels)
        self.encoder = Encoder(config, layout, config.channels)
        self.decoder = Decoder(config, layout, self.likelihood.num_parameters)
        if config.init == "lecun":
            _widen_weights(self)
        self._head_bands = 0
        self.refine_with(None)
        conditional = config.condition.kind != "none"
        self.condition = Conditioner(config, layout) if conditional else None
        if len(config.size) == 2:
            # Convolutions are up to three times faster so; the ops follow their layout.
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def recompute(self, plan: Recompute) -> None:
        """Sets what the backward computes again instead of keeping; by default nothing.

        Results and gradients stay the same bit for bit, except with `plan.head`, which sums the
        log-probability in another order.

        Raises:
            UserError: if a resolution has no level in the layout, or the likelihood cannot be
                computed in bands.
        """
        known = {"encoder": self.encoder.resolutions, "decoder": self.decoder.resolutions}
        for part, resolutions in known.items():
            if unknown := sorted(set(getattr(plan, part)) - resolutions):
                raise UserError(
                    f"{part}: no block stands at resolution {unknown[0]}; blocks stand at "
                    f"{', '.join(map(str, sorted(resolutions)))}"
                )
        if plan.head and not self.likelihood.by_pixel:
            raise UserError(
                f"head bands: a {self.likelihood.kind} draws noise for an image as a whole; it "
                "cannot be computed in bands"
            )
        self.encoder.levels, self.decoder.levels = plan.encoder, plan.decoder
        self._head_bands = plan.head

    def compile_blocks(self) -> None:
        """Runs the bottlenecks of both ladders compiled wherever gradients are taken.

        Those of one kind share one compilation. Evaluation and sampling stay as they are.
        """
        compiled = regional.compiled_call()
        for module in self.modules():
            if isinstance(module, Bottleneck):
                module.call = compiled

    @property
    def num_dims(self) -> int:
        """Data dimensions of one example: what bits per dimension divide by."""
        return math.prod(self.shape)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.decoder.gain.device

    def condition_of(
        self,
        x: Tensor,
        labels: Tensor | None = None,
        conditions: Tensor | None = None,
        *,
        rng: Tensor,
    ) -> Tensor | None:
        """Returns the conditions of examples of a data set; see `hvae.models.condition`.

        Args:
            x: uint8 (N, C, *S).
            labels: int64 (N,), what the set says.
            conditions: (N, ...), what the set stores beside its images.
            rng: seed and global index of the first example; decides where random masks lie.

        Raises:
            UserError: if the set does not say what the model wants.
        """
        return condition_of(self.config.condition, x, labels=labels, conditions=conditions, rng=rng)

    def forward(
        self,
        x: Tensor,
        cond: Tensor | None = None,
        *,
        rng: Tensor | None = None,
        eps: Sequence[Tensor] | None = None,
    ) -> Elbo:
        """Returns the ELBO of uint8 data (N, C, *S); differentiable in the parameters.

        Args:
            x: the data.
            cond: conditions (N, ...), on the device of `x`. None: without.
            rng: int64 (2,), seed and global index of the first example; decides the noise and, in
                training mode, whose conditions are dropped. Default: (0, 0), so
                equal calls give equal results.
            eps: noise (N, Z, *S) of each group instead of the generated one.

        Raises:
            UserError: if `x` is not uint8 of the model's shape, `eps` has not one tensor per group,
                or `cond` does not fit the model.
        """
        rng = make_rng(0, 0, x.device) if rng is None else rng
        ladder = self._posterior(x, rng=rng, eps=eps, cond=cond, drop=self.training)
        nll = -self._log_prob(ladder.state, x, rng)
        kl = torch.stack(ladder.kl, 1)
        elbo = -(nll + kl.sum(1))
        return Elbo(nll, kl, elbo, -elbo / (math.log(2) * self.num_dims))

    def log_weights(self, x: Tensor, cond: Tensor | None = None, *, rng: Tensor) -> Tensor:
        """Returns ln p(x, z) - ln q(z | x) for one draw z ~ q per row of `x`, nats, float64 (N,).

        Their log-mean-exp over draws is the importance-weighted bound (Burda et al.,
        arXiv 1509.00519).
        """
        ladder = self._posterior(x, rng=rng, cond=cond, log_ratios=True)
        log_prob = self._log_prob(ladder.state, x, rng).double()
        return log_prob + torch.stack(ladder.log_ratios, 1).sum(1)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        temperature: float | Sequence[float] = 1.0,
        output: str = "sample",
        cond: Condition | None = None,
        guidance: float | tuple[float, float] = 1.0,
        seed: int = 0,
        first_index: int = 0,
        latents: Sequence[Tensor] | None = None,
        refined: bool | None = None,
    ) -> Tensor:
        """Returns samples `first_index` to `first_index + n - 1` of a seed, uint8 (n, C, *S).

        Sample i is the same, bit for bit, whatever `n` and `first_index` it is drawn with.

        Args:
            n: how many.
            temperature: scale of the latents' standard deviations, for all groups or one each.
            output: "sample" draws from the likelihood, "mean" takes its mean.
            cond: conditions of the samples, (n, ...) or one for all; classes also by name.
            guidance: how far priors go from unconditional (0) to conditional (1) or beyond; a pair
                weighs means and standard deviations apart. Other values than 0 and 1 take twice
                the time.
            seed: of the latents and the output draw.
            first_index: global index of the first sample.
            latents: a prefix (n, Z, *S) each, coarse to fine, to use instead of drawing.
            refined: through the refiner, whose images have no draw from the likelihood in them,
                whatever `output`. None: if there is one.

        Raises:
            UserError: on an unknown `output`, a negative count, latents or conditions of other
                shapes, guidance without a condition, or `refined` without a refiner.
        """
        if output not in ("sample", "mean"):
            raise UserError(f'output: wanted "sample" or "mean", got {output!r}')
        if n < 0 or first_index < 0:
            raise UserError(f"wanted n and first_index of at least 0, got {n} and {first_index}")
        rows = self._told(cond, n)
        request = Request(
            temperature=temperatures_of(temperature, self.num_groups),
            output=output,
            rows=rows,
            guidance=guidance_of(guidance, rows),
            latents=latents_of(latents or (), n, self.latent_shapes),
            seed=derive_seed(seed, "sample"),
            refiner=self._refiner_for(refined),
        )
        return draw(self, n, first_index, request)

    def encode(
        self,
        x: Tensor,
        cond: Condition | None = None,
        *,
        mode: str = "sample",
        seed: int = 0,
        first_index: int = 0,
    ) -> Latents:
        """Returns posterior latents of uint8 data, (N, Z, *S) per group, coarse to fine.

        Args:
            x: (N, C, *S) uint8.
            cond: conditions of the data, (N, ...) or one for all; classes also by name.
            mode: "sample", or "mean" for the mean of each group given the means above it.
            seed: of the noise.
            first_index: global index of the first image; image i of a seed meets the same noise in
                any batch.

        Raises:
            UserError: as `forward`, or on an unknown `mode`.
        """
        if mode not in ("sample", "mean"):
            raise UserError(f'mode: wanted "sample" or "mean", got {mode!r}')
        eps = None
        if mode == "mean":
            like = self.decoder.gain
            eps = [like.new_zeros(len(x), *shape) for shape in self.latent_shapes]
        rng = make_rng(derive_seed(seed, "encode"), first_index, self.device)
        rows = self._told(cond, len(x))
        return tuple(self._posterior(x, rng=rng, eps=eps, cond=rows).latents)

    def decode(
        self,
        latents: Sequence[Tensor],
        cond: Condition | None = None,
        *,
        temperature: float | Sequence[float] = 0.0,
        seed: int = 0,
    ) -> Distribution:
        """Returns the distribution of data given latents, of which a prefix is enough.

        Args:
            latents: (N, Z, *S) per group, coarse to fine; at least one.
            cond: conditions of the data, (N, ...) or one for all; classes also by name.
            temperature: of the groups that are missing, which come from the prior.
            seed: of their noise.

        Raises:
            UserError: if there are no latents, too many, or their shapes do not fit.
        """
        ladder = self._decoded(latents, cond, temperature, seed, None)
        return self.likelihood(self.decoder.head(ladder.state))

    def decode_image(
        self,
        latents: Sequence[Tensor],
        cond: Condition | None = None,
        *,
        temperature: float | Sequence[float] = 0.0,
        seed: int = 0,
        refined: bool | None = None,
    ) -> Tensor:
        """Returns the image of latents, uint8 (N, C, *S): the mean of the likelihood, or refined.

        Args:
            latents, cond, temperature, seed: as `decode`.
            refined: through the refiner. None: if there is one.

        Raises:
            UserError: as `decode`, or on `refined` without a refiner.
        """
        refiner = self._refiner_for(refined)
        ladder = self._decoded(latents, cond, temperature, seed, refiner)
        return self.image(ladder, refiner).round().to(torch.uint8)

    def image(self, ladder: Ladder, refiner: Refiner | None = None) -> Tensor:
        """Returns the image of a pass down the ladder in units 0..255, floating (N, C, *S).

        Differentiable. With a refiner, the pass must have had it too.
        """
        mean = self.likelihood(self.decoder.head(ladder.state)).mean()
        return mean if refiner is None else refiner.image(mean, ladder.states)

    def refine_with(self, refiner: Refiner | None) -> None:
        """Has images refined by default; None takes the refiner away.

        It does not become a part of the model: neither its state nor its likelihood changes.
        """
        self.__dict__["_refiner"] = refiner  # nn.Module's own way would register it

    @property
    def refiner(self) -> Refiner | None:
        """What refines images, if anything does."""
        refiner: Refiner | None = self.__dict__["_refiner"]
        return refiner

    def _refiner_for(self, refined: bool | None) -> Refiner | None:
        if refined and self.refiner is None:
            raise UserError("refined: this model has no refiner; run hvae refine first")
        return None if refined is False else self.refiner

    def _decoded(
        self,
        latents: Sequence[Tensor],
        cond: Condition | None,
        temperature: float | Sequence[float],
        seed: int,
        refiner: Refiner | None,
    ) -> Ladder:
        if not latents:
            raise UserError("decode wants at least one latent; use sample() to draw all of them")
        n = len(latents[0])
        latents = latents_of(latents, n, self.latent_shapes)
        ladder: Ladder = self.decoder(
            n,
            make_rng(derive_seed(seed, "decode"), 0, self.device),
            latents=latents,
            temperature=temperatures_of(temperature, self.num_groups),
            cond=self.maps(self._told(cond, n), n),
            refiner=refiner,
        )
        return ladder

    @property
    def chunk(self) -> int:
        """Samples drawn at once: 16, or fewer where those would exceed 4 Mi data dimensions."""
        return min(CHUNK, max(1, 2**22 // self.num_dims))

    @property
    def latent_shapes(self) -> list[tuple[int, ...]]:
        """Shapes (Z, *S) of the latents, coarse to fine."""
        layout = self.decoder.layout
        return [
            (self.config.z_channels, *layout.shape_at(block.resolution)) for block in layout.decoder
        ]

    def _posterior(
        self,
        x: Tensor,
        *,
        rng: Tensor,
        eps: Sequence[Tensor] | None = None,
        cond: Tensor | None = None,
        log_ratios: bool = False,
        drop: bool = False,
    ) -> Ladder:
        if x.dtype != torch.uint8 or tuple(x.shape[1:]) != self.shape:
            raise UserError(
                f"wanted uint8 data of shape (N, {', '.join(map(str, self.shape))}), "
                f"got {x.dtype} {tuple(x.shape)}"
            )
        if eps is not None and len(eps) != self.num_groups:
            raise UserError(f"eps: wanted noise for {self.num_groups} groups, got {len(eps)}")
        scaled = self.likelihood.network_input(x).to(self.decoder.gain.dtype)
        features = self.encoder(scaled)
        ladder: Ladder = self.decoder(
            len(x),
            rng,
            features=features,
            eps=eps,
            log_ratios=log_ratios,
            cond=self.maps(cond, len(x), rng if drop else None),
        )
        return ladder

    def _log_prob(self, state: Tensor, x: Tensor, rng: Tensor) -> Tensor:
        """Log p(x | z) of data given the last state of the decoder, nats, (N,)."""
        if not self._head_bands or not torch.is_grad_enabled():
            return self.likelihood(self.decoder.head(state)).log_prob(x, rng=rng)
        rows = -(-state.shape[2] // self._head_bands)
        bands = zip(state.split(rows, 2), x.split(rows * self.config.patch, 2), strict=True)

        def log_prob(state: Tensor, x: Tensor) -> Tensor:
            return self.likelihood(self.decoder.head(state)).log_prob(x)

        return torch.stack([recomputed("block", log_prob, *band) for band in bands]).sum(0)

    def _told(self, cond: Condition | None, n: int) -> Tensor | None:
        """A condition in any of its forms as n rows on the model's device."""
        if cond is None:
            return None
        if self.condition is None:
            raise UserError(_NO_CONDITION)
        return self.condition.rows(cond, n, self.device)

    def maps(
        self, cond: Tensor | None, n: int, drop: Tensor | None = None
    ) -> dict[int, Tensor] | None:
        """The embedded conditions of n examples by resolution; None for an unconditional model."""
        if self.condition is None:
            if cond is not None:
                raise UserError(_NO_CONDITION)
            return None
        maps: dict[int, Tensor] = self.condition(cond, n, drop)
        return maps


@torch.no_grad()
def _widen_weights(model: nn.Module) -> None:
    """Brings torch's default weights, of variance 1 / (3 fan-in), to variance 1 / fan-in."""
    for module in model.modules():
        if isinstance(module, CONVS):
            module.weight.mul_(3**0.5)
