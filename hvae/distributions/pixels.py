"""What all likelihoods share: scaling into the network, checks, noise, and sums over an image.

Shapes: N batch, C channels, *S one to three spatial dimensions, P parameters per pixel.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae.distributions.base import Distribution
from hvae.distributions.levels import to_levels
from hvae.errors import UserError
from hvae.ops.common import arithmetic_dtype
from hvae.ops.philox import OUTPUT_STREAM, make_rng, philox_normal, philox_uniform


class PixelLikelihood(ABC):
    """A family of distributions over uint8 images.

    name        default  meaning
    channels             C, at least 1
    bits        8        bit depth that is modelled: levels are the images' upper bits
    input_mean  127.5    subtracted from the pixels that enter the network
    input_std   127.5    what they are then divided by

    With `bits` below 8 the log-probability is one of the reduced levels, and images are mapped
    back with level L - 1 at 255. The network sees all 8 bits.
    """

    kind: str
    by_pixel = True

    def __init__(
        self,
        channels: int,
        *,
        bits: int = 8,
        input_mean: float = 127.5,
        input_std: float = 127.5,
    ) -> None:
        if channels < 1:
            raise UserError(f"a {self.kind} models at least 1 channel, the data has {channels}")
        if not 1 <= bits <= 8:
            raise UserError(f"a {self.kind} models 1 to 8 bits, got {bits}")
        self.channels, self.bits = channels, bits
        self.input_mean, self.input_std = input_mean, input_std

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Channels the decoder's head must supply per pixel."""

    @property
    def measures(self) -> str:
        """What bits per dimension of its log-probabilities are bits of, in words for a report."""
        return f"bits/dim of the upper {self.bits} bits" if self.bits < 8 else _OF_ALL_BITS

    def network_input(self, x: Tensor) -> Tensor:
        """Returns images (N, C, *S) in 0..255 less the mean and over the std; uint8 as float32."""
        x = x if x.is_floating_point() else x.float()
        return (x - self.input_mean) * (1 / self.input_std)

    def __call__(self, params: Tensor) -> Distribution:
        """Returns the distribution for head outputs (N, num_parameters, *S).

        Raises:
            UserError: if `params` has another number of channels or no spatial dimension.
        """
        if params.ndim < 3 or params.shape[1] != self.num_parameters:
            raise UserError(
                f"a {self.kind} of {self.channels} channels wants head outputs "
                f"(N, {self.num_parameters}, *S), got {tuple(params.shape)}"
            )
        return self._images(params)

    @abstractmethod
    def _images(self, params: Tensor) -> Distribution:
        """The distribution for head outputs that fit."""


_OF_ALL_BITS = "bits/dim of the uint8 values"


@dataclass(frozen=True)
class PixelImages(ABC):
    """A distribution over images for head outputs `params` (N, P, *S).

    float16 and bfloat16 parameters are computed with in float32.
    """

    params: Tensor
    channels: int
    bits: int

    def log_prob(self, x: Tensor, *, rng: Tensor | None = None) -> Tensor:
        """Returns log-probabilities of uint8 images, nats per example, (N,).

        Args:
            x: (N, C, *S) uint8.
            rng: noise of densities, see `hvae.distributions.base.Distribution`.

        Raises:
            UserError: if `x` is not uint8 of the shape that the parameters have.
        """
        self._check(x)
        return self._log_prob(to_levels(x, self.bits), rng)

    def sample(self, rng: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Returns a draw, uint8 (N, C, *S).

        Args:
            rng: int64 (2,), seed and global index of the first image, see `make_rng`.
            temperature: scales the spread, or divides logits; 0 takes the most likely value of each
                component.

        Raises:
            UserError: if the temperature is not finite and at least 0.
        """
        if not (math.isfinite(temperature) and temperature >= 0):
            raise UserError(f"temperature must be finite and at least 0, got {temperature}")
        return self._sample(rng, temperature)

    @abstractmethod
    def mean(self) -> Tensor:
        """Returns the mean in image units 0..255, (N, C, *S), float32 or float64."""

    def mean_image(self) -> Tensor:
        """Returns the mean rounded to uint8, (N, C, *S)."""
        return self.mean().round().to(torch.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, *S) of the images."""
        return (self.params.shape[0], self.channels, *self.params.shape[2:])

    def _check(self, x: Tensor) -> None:
        if x.dtype != torch.uint8 or x.shape != self.shape:
            raise UserError(f"wanted uint8 images {self.shape}, got {x.dtype} {tuple(x.shape)}")

    @abstractmethod
    def _log_prob(self, levels: Tensor, rng: Tensor | None) -> Tensor:
        """Log-probabilities of uint8 levels (N, C, *S), (N,)."""

    @abstractmethod
    def _sample(self, rng: Tensor, temperature: float) -> Tensor:
        """A draw at a temperature that fits."""

    def _wide(self) -> Tensor:
        """The parameters in the dtype of the arithmetic."""
        return self.params.to(arithmetic_dtype(self.params.dtype))

    def _uniform(self, rng: Tensor | None, stream: int) -> Tensor:
        """Uniforms in (0, 1) in the shape of the images.

        Element e of an image, in NCHW order, is lane e % 4 of its Philox block e // 4.
        """
        if rng is None:
            rng = make_rng(0, 0, self.params.device)
        batch, per_image = self.shape[0], math.prod(self.shape[1:])
        dtype = arithmetic_dtype(self.params.dtype)
        blocks = philox_uniform(rng, stream, (per_image + 3) // 4, batch, dtype)
        return blocks.flatten(1)[:, :per_image].reshape(self.shape)

    def _normal(self, rng: Tensor) -> Tensor:
        """Standard normals in the shape of the images, from the stream of output draws."""
        dtype = arithmetic_dtype(self.params.dtype)
        return philox_normal(rng, OUTPUT_STREAM, self.shape, dtype)


def sum_image(per_value: Tensor) -> Tensor:
    """Returns the sum over each example, (N,)."""
    return per_value.flatten(1).sum(1)
