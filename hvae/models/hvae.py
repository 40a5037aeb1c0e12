"""The hierarchical VAE: encoder, ladder and likelihood behind training and use."""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from hvae.distributions import Distribution, make_likelihood
from hvae.errors import UserError
from hvae.models.config import ModelConfig
from hvae.models.decoder import Decoder, Ladder
from hvae.models.encoder import Encoder
from hvae.models.layout import Layout
from hvae.ops.philox import derive_seed, make_rng

# Sampling runs the network on chunks of this many samples, aligned to their global index and
# padded: convolutions differ in the last bit between batch sizes, and sample i must not.
CHUNK = 16

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
        if len(config.size) == 2:
            # Convolutions are up to three times faster so; the ops follow their layout.
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def num_dims(self) -> int:
        """Data dimensions of one example: what bits per dimension divide by."""
        return math.prod(self.shape)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.decoder.gain.device

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
            cond: reserved; this model takes no condition.
            rng: int64 (2,), seed and global index of the first example. Default: (0, 0), so equal
                calls give equal results.
            eps: noise (N, Z, *S) of each group instead of the generated one.

        Raises:
            UserError: if `x` is not uint8 of the model's shape, `eps` has not one tensor per group,
                or `cond` is given.
        """
        rng = make_rng(0, 0, x.device) if rng is None else rng
        ladder = self._posterior(x, rng=rng, eps=eps, cond=cond)
        nll = -self.likelihood(ladder.params).log_prob(x, rng=rng)
        kl = torch.stack(ladder.kl, 1)
        elbo = -(nll + kl.sum(1))
        return Elbo(nll, kl, elbo, -elbo / (math.log(2) * self.num_dims))

    def log_weights(self, x: Tensor, *, rng: Tensor) -> Tensor:
        """Returns ln p(x, z) - ln q(z | x) for one draw z ~ q per row of `x`, nats, float64 (N,).

        Their log-mean-exp over draws is the importance-weighted bound (Burda et al.,
        arXiv 1509.00519).
        """
        ladder = self._posterior(x, rng=rng, log_ratios=True)
        log_prob = self.likelihood(ladder.params).log_prob(x, rng=rng).double()
        return log_prob + torch.stack(ladder.log_ratios, 1).sum(1)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        temperature: float | Sequence[float] = 1.0,
        output: str = "sample",
        cond: Tensor | None = None,
        seed: int = 0,
        first_index: int = 0,
        latents: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Returns samples `first_index` to `first_index + n - 1` of a seed, uint8 (n, C, *S).

        Sample i is the same, bit for bit, whatever `n` and `first_index` it is drawn with.

        Args:
            n: how many.
            temperature: scale of the latents' standard deviations, for all groups or one each.
            output: "sample" draws from the likelihood, "mean" takes its mean.
            cond: reserved; this model takes no condition.
            seed: of the latents and the output draw.
            first_index: global index of the first sample.
            latents: a prefix (n, Z, *S) each, coarse to fine, to use instead of drawing.

        Raises:
            UserError: on an unknown `output`, a negative count, or latents of other shapes.
        """
        self._refuse_condition(cond)
        if output not in ("sample", "mean"):
            raise UserError(f'output: wanted "sample" or "mean", got {output!r}')
        if n < 0 or first_index < 0:
            raise UserError(f"wanted n and first_index of at least 0, got {n} and {first_index}")
        latents = self._check_latents(latents or (), n)
        seed = derive_seed(seed, "sample")
        temperature = self._temperatures(temperature)
        start = first_index - first_index % CHUNK
        chunks = [torch.empty(0, *self.shape, dtype=torch.uint8, device=self.device)]
        for base in range(start, first_index + n, CHUNK):
            rng = make_rng(seed, base, self.device)
            given = [_rows(z, base - first_index) for z in latents]
            ladder = self.decoder(CHUNK, rng, latents=given, temperature=temperature)
            images = self.likelihood(ladder.params)
            chunks.append(images.mean_image() if output == "mean" else images.sample(rng))
        return torch.cat(chunks)[first_index - start :][:n]

    def encode(
        self, x: Tensor, cond: Tensor | None = None, *, mode: str = "sample", seed: int = 0
    ) -> Latents:
        """Returns posterior latents of uint8 data, (N, Z, *S) per group, coarse to fine.

        Args:
            x: (N, C, *S) uint8.
            cond: reserved; this model takes no condition.
            mode: "sample", or "mean" for the mean of each group given the means above it.
            seed: of the noise.

        Raises:
            UserError: as `forward`, or on an unknown `mode`.
        """
        if mode not in ("sample", "mean"):
            raise UserError(f'mode: wanted "sample" or "mean", got {mode!r}')
        eps = None
        if mode == "mean":
            like = self.decoder.gain
            eps = [like.new_zeros(len(x), *shape) for shape in self.latent_shapes]
        rng = make_rng(derive_seed(seed, "encode"), 0, self.device)
        return tuple(self._posterior(x, rng=rng, eps=eps, cond=cond).latents)

    def decode(
        self,
        latents: Sequence[Tensor],
        cond: Tensor | None = None,
        *,
        temperature: float | Sequence[float] = 0.0,
        seed: int = 0,
    ) -> Distribution:
        """Returns the distribution of data given latents, of which a prefix is enough.

        Args:
            latents: (N, Z, *S) per group, coarse to fine; at least one.
            cond: reserved; this model takes no condition.
            temperature: of the groups that are missing, which come from the prior.
            seed: of their noise.

        Raises:
            UserError: if there are no latents, too many, or their shapes do not fit.
        """
        self._refuse_condition(cond)
        if not latents:
            raise UserError("decode wants at least one latent; use sample() to draw all of them")
        latents = self._check_latents(latents, len(latents[0]))
        rng = make_rng(derive_seed(seed, "decode"), 0, self.device)
        temperature = self._temperatures(temperature)
        ladder = self.decoder(len(latents[0]), rng, latents=latents, temperature=temperature)
        return self.likelihood(ladder.params)

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
    ) -> Ladder:
        self._refuse_condition(cond)
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
            len(x), rng, features=features, eps=eps, log_ratios=log_ratios
        )
        return ladder

    def _temperatures(self, temperature: float | Sequence[float]) -> list[float]:
        if isinstance(temperature, (int, float)):
            return [float(temperature)] * self.num_groups
        if len(temperature) != self.num_groups:
            raise UserError(
                f"temperature: wanted one number or {self.num_groups}, got {len(temperature)}"
            )
        return [float(t) for t in temperature]

    def _check_latents(self, latents: Sequence[Tensor], n: int) -> list[Tensor]:
        wanted = self.latent_shapes
        if len(latents) > len(wanted):
            raise UserError(f"wanted at most {len(wanted)} latents, got {len(latents)}")
        for group, z in enumerate(latents):
            if tuple(z.shape) != (n, *wanted[group]):
                raise UserError(
                    f"latent {group}: wanted {(n, *wanted[group])}, got {tuple(z.shape)}"
                )
        return list(latents)

    @staticmethod
    def _refuse_condition(cond: Tensor | None) -> None:
        if cond is not None:
            raise UserError("this model takes no condition; leave cond out")


def _rows(z: Tensor, start: int) -> Tensor:
    """Returns rows `start` to `start + CHUNK` of z; rows it does not have are zero."""
    rows = z.new_zeros(CHUNK, *z.shape[1:])
    low, high = max(0, start), min(len(z), start + CHUNK)
    rows[low - start : high - start] = z[low:high]
    return rows
