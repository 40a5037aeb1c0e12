"""The top-down network: one ladder that serves posterior, prior, given and partial latents."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from hvae import ops
from hvae.distributions.gaussian import log_density_ratio
from hvae.models.config import ModelConfig
from hvae.models.encoder import attention_at, bottleneck, residual_block, residual_scale
from hvae.models.ladder import Draw, Guidance, Ladder, Outcome
from hvae.models.latent import LatentForm
from hvae.models.layout import Layout
from hvae.models.recompute import Level, recomputed, runs
from hvae.models.refiner import Refiner
from hvae.nn.block import ACTIVATIONS, Bottleneck
from hvae.nn.conv import conv, in_fp32, zero_conv
from hvae.nn.resample import fit_channels, unpatchify, upsample


class DecoderBlock(nn.Module):
    """One latent group and the residual block that follows it (VDVAE figure 3).

    Posterior and prior both read the state before the prior's feature update h is added to it.
    """

    def __init__(
        self,
        config: ModelConfig,
        ndim: int,
        resolution: int,
        *,
        learned_prior: tuple[int, ...] | None = None,
    ) -> None:
        """With a spatial shape for `learned_prior`, the prior is parameters of that shape."""
        super().__init__()
        width, self.z_channels = config.width_at(resolution), config.z_channels
        self.form = LatentForm.of(config)
        # Called with (q, p, z), as the op reads them, for every draw that is scored.
        self.watcher: Callable[[Tensor, Tensor, Tensor], None] | None = None
        self.posterior = bottleneck(
            config, ndim, resolution, 2 * width, 2 * self.z_channels, fp32_tail=True
        )
        embedding = config.condition.width if config.condition.kind != "none" else None
        out = 2 * self.z_channels + width
        self.prior: Bottleneck | LearnedPrior
        if learned_prior is None:
            self.prior = bottleneck(config, ndim, resolution, width, out, fp32_tail=True)
        else:
            self.prior = LearnedPrior(learned_prior, out, embedding)
        self.z_proj = conv(ndim, self.z_channels, width)
        self.resnet = residual_block(config, ndim, resolution)
        self.attention = attention_at(config, ndim, resolution)
        self.cond_proj = None if embedding is None else zero_conv(ndim, embedding, width)

    @torch.no_grad()
    def scale_initial_weights(self, num_groups: int, tail: float) -> None:
        """Makes the state's variance independent of depth, and every prior start at N(0, 1).

        VDVAE, arXiv 2011.10650. The zero prior tail also makes h start at zero.
        """
        self.z_proj.weight.mul_(num_groups**-0.5)
        self.resnet.scale_tail(tail)
        if isinstance(self.prior, Bottleneck):
            self.prior.scale_tail(0.0)

    def forward(self, x: Tensor, draw: Draw, *, log_ratios: bool = False) -> Outcome:
        """Returns what comes of a state (N, width, *S).

        Pure, so that it can be run again; FSDP also hands over copies of the arguments.
        """
        if draw.inject is not None:
            x = x + draw.inject(x)
        if self.cond_proj is not None and draw.cond is not None:
            x = x + in_fp32(self.cond_proj, draw.cond)
        activated = self.posterior.activation(x)
        if isinstance(self.prior, Bottleneck):
            p = self.form.prior(self.prior.from_activated(activated))
        else:
            p = self.form.prior(self.prior(len(x), draw.cond))
        kl = ratio = None
        if draw.z is None and draw.feature is not None:
            q = self.form.posterior(self.posterior.from_activated(activated, draw.feature), p)
            drawn = ops.gaussian_latent(
                q, p, x,
                rng=draw.rng, stream=draw.stream, eps=draw.eps,
                std=self.form.std, floor=self.form.floor,
            )  # fmt: skip
            assert drawn.y is not None
            z, kl, x = drawn.z, drawn.kl, drawn.y
            if self.watcher is not None and not log_ratios:
                self.watcher(q, p, z)
            if log_ratios:
                ratio = log_density_ratio(z, q, p, self.form.std, self.form.floor)
        else:
            z = draw.z if draw.z is not None else self._prior_draw(p, draw)
            x = x + p[:, 2 * self.z_channels :]
        x = x + in_fp32(self.z_proj, z.to(x.dtype))
        residual: Tensor = self.resnet(x)
        x = x + residual
        if self.attention is not None:
            x = x + self.attention(x)
        return Outcome(x, z, kl, ratio)

    def _prior_draw(self, p: Tensor, draw: Draw) -> Tensor:
        std, floor = self.form.std, self.form.floor
        if draw.guidance is not None:
            prior, null = p.chunk(2)
            p = self.form.guided(prior, null, mean=draw.guidance.mean, std=draw.guidance.std)
            std, floor = "log", 0.0
        z = ops.gaussian_sample(
            p, self.z_channels,
            rng=draw.rng, stream=draw.stream, eps=draw.eps, temperature=draw.temperature,
            std=std, floor=floor,
        )  # fmt: skip
        return z if draw.guidance is None else torch.cat([z, z])


def _null_first(both: Tensor) -> tuple[Tensor, Tensor]:
    """The unconditional half of a guided batch, and the conditional one."""
    state, null = both.chunk(2)
    return null, state


class LearnedPrior(nn.Module):
    """A prior that is parameters; a condition moves it by a projection that starts at zero.

    name       default  meaning
    shape               spatial shape of the group
    channels            channels out
    embedding           channels of the embedded condition, None for none
    """

    def __init__(self, shape: tuple[int, ...], channels: int, embedding: int | None) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.zeros(1, channels, *shape))
        self.cond_proj = None if embedding is None else zero_conv(len(shape), embedding, channels)

    def forward(self, n: int, cond: Tensor | None) -> Tensor:
        """Returns (n, channels, *shape)."""
        p = self.map.repeat(n, *[1] * (self.map.ndim - 1))
        if self.cond_proj is None or cond is None:
            return p
        return p + in_fp32(self.cond_proj, cond)


class Decoder(nn.Module):
    """Latent groups from coarse to fine, then the head that parameterises the likelihood."""

    def __init__(self, config: ModelConfig, layout: Layout, num_parameters: int) -> None:
        super().__init__()
        ndim = len(layout.finest_shape)
        self.layout, self.shape_at = layout, layout.shape_at
        self.finest, self.patch = layout.finest, config.patch
        self.activation = ACTIVATIONS[config.activation]
        self.levels: Mapping[int, Level] = {}  # what the backward computes again, by resolution
        resolutions = sorted({block.resolution for block in layout.decoder})
        self.resolutions = set(resolutions)
        self.widths = {r: config.width_at(r) for r in resolutions}
        # Learned starting states; named by resolution, since the order of a list would not tell.
        self.bias_maps = nn.ParameterDict(
            {
                str(r): torch.zeros(1, self.widths[r], *layout.shape_at(r))
                for r in resolutions
                if r <= config.no_bias_above
            }
        )
        self.blocks = nn.ModuleList()
        num_groups = len(layout.decoder)
        for group, spec in enumerate(layout.decoder):
            learned = config.top_prior == "learned" and group == 0
            shape = layout.shape_at(spec.resolution) if learned else None
            block = DecoderBlock(config, ndim, spec.resolution, learned_prior=shape)
            block.scale_initial_weights(num_groups, residual_scale(config, num_groups))
            self.blocks.append(block)
        self.gain = nn.Parameter(torch.ones(1, config.width, *[1] * ndim))
        self.bias = nn.Parameter(torch.zeros(1, config.width, *[1] * ndim))
        self.out_conv = conv(ndim, config.width, num_parameters * config.patch**ndim)

    def forward(
        self,
        batch: int,
        rng: Tensor,
        *,
        features: Mapping[int, Tensor] | None = None,
        latents: Sequence[Tensor] = (),
        eps: Sequence[Tensor] | None = None,
        temperature: float | Sequence[float] = 1.0,
        log_ratios: bool = False,
        cond: Mapping[int, Tensor] | None = None,
        guidance: Guidance | None = None,
        refiner: Refiner | None = None,
    ) -> Ladder:
        """Runs down the ladder.

        Args:
            batch: N.
            rng: int64 (2,), seed and global index of the first sample; group l draws stream l.
            features: encoder features by resolution; without them groups come from the prior.
            latents: the first latents, coarse to fine, where given; the rest is drawn.
            eps: explicit noise per group.
            temperature: of prior draws, for all groups or one each.
            log_ratios: also report ln p(z) - ln q(z) of posterior draws.
            cond: embedded conditions by resolution, of a conditional model.
            guidance: weights of prior draws. The second half of the batch is then the first half
                without its condition; given latents have both halves, the result has one.
            refiner: corrects the state before each group that is drawn from the prior.
        """
        result = Ladder()
        if features is not None:
            features = {r: self.activation(f) for r, f in features.items()}

        def draw_of(group: int) -> Draw:
            resolution = self.layout.decoder[group].resolution
            from_prior = features is None and group >= len(latents)
            return Draw(
                rng=rng,
                stream=group,
                feature=None if features is None else features[resolution],
                z=latents[group] if group < len(latents) else None,
                eps=None if eps is None else eps[group],
                temperature=temperature if isinstance(temperature, float) else temperature[group],
                cond=None if cond is None else cond[resolution],
                guidance=guidance,
                inject=refiner.injector(group) if refiner and from_prior else None,
            )

        states: dict[int, Tensor] = {}
        for groups in self._runs():
            first = self.layout.decoder[groups.start]
            outcomes = recomputed(
                self.levels.get(first.resolution, "none"),
                self._descend,
                groups.start,
                batch,
                states.get(first.resolution),
                None if first.mix_from is None else states[first.mix_from],
                [draw_of(group) for group in groups],
                log_ratios,
            )
            for outcome in outcomes:
                result.add(outcome)
            states[first.resolution] = outcomes[-1].x
        if guidance is not None:
            # Mixtures are not extrapolated: beyond 1 the conditional state stays what is decoded.
            weight = min(guidance.mean, 1.0)
            read = states if refiner is not None else {self.finest: states[self.finest]}
            states = {r: torch.lerp(*_null_first(both), weight) for r, both in read.items()}
        result.state = states[self.finest]
        if refiner is not None:
            result.states = states
        return result

    def head(self, state: Tensor) -> Tensor:
        """Returns the likelihood's parameters, (N, P, *S), from the last state or rows of it."""
        out = state * self.gain + self.bias
        return unpatchify(in_fp32(self.out_conv, out), self.patch)

    def _runs(self) -> list[range]:
        specs = self.layout.decoder
        mixing = {group for group, spec in enumerate(specs) if spec.mix_from is not None}
        return runs([spec.resolution for spec in specs], self.levels, mixing)

    def _descend(
        self,
        first: int,
        batch: int,
        x: Tensor | None,
        coarse: Tensor | None,
        draws: Sequence[Draw],
        log_ratios: bool,
    ) -> list[Outcome]:
        """What the groups from `first` on leave, all of one resolution.

        Without a state `x` they start from the initial one. A `coarse` state is added to it, here,
        so that the sum is not kept where the groups are run again.
        """
        if x is None:
            device = draws[0].rng.device
            x = self._initial_state(self.layout.decoder[first].resolution, batch, device)
        if coarse is not None:
            x = x + upsample(fit_channels(coarse, x.shape[1]), x.shape[2:])
        outcomes: list[Outcome] = []
        for block, draw in zip(self.blocks[first:], draws, strict=False):
            outcomes.append(block(x, draw, log_ratios=log_ratios))
            x = outcomes[-1].x
        return outcomes

    def _initial_state(self, resolution: int, batch: int, device: torch.device) -> Tensor:
        shape = (batch, self.widths[resolution], *self.shape_at(resolution))
        if str(resolution) in self.bias_maps:
            start: Tensor = self.bias_maps[str(resolution)]
            return start.expand(shape)
        return torch.zeros(shape, dtype=self.gain.dtype, device=device)
