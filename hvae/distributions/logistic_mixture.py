"""Discretised logistic mixture over grey or colour images."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hvae import ops
from hvae.distributions.compat_mixture import compat_nll, compat_sample
from hvae.errors import UserError
from hvae.ops.logistic_mixture import num_parameters

# Philox stream of output draws: beyond every latent group's.
OUTPUT_STREAM = 2**31 - 1


class LogisticMixture:
    """The family of discretised logistic mixtures; see `hvae.ops.logistic_mixture_nll`.

    name        default  meaning
    channels             1 (grey) or 3 (colours coupled within a pixel)
    mixtures    10       components
    bits        8        bit depth that is modelled: levels are the images' upper bits
    form        "exact"  or "compat", see `hvae.distributions.compat_mixture`
    input_mean  127.5    subtracted from the pixels that enter the network
    input_std   127.5    what they are then divided by

    With `bits` below 8 the log-probability is one of the reduced levels, and images are mapped
    back with level L - 1 at 255. The network sees all 8 bits.
    """

    def __init__(
        self,
        channels: int,
        *,
        mixtures: int = 10,
        bits: int = 8,
        form: Literal["exact", "compat"] = "exact",
        input_mean: float = 127.5,
        input_std: float = 127.5,
    ) -> None:
        if channels not in (1, 3):
            raise UserError(
                f"a logistic_mixture models 1 or 3 channels, the data has {channels}; "
                "set data.channels to 1 or 3"
            )
        self.channels, self.mixtures, self.bits = channels, mixtures, bits
        self.input_mean, self.input_std = input_mean, input_std
        self._images = CompatMixtureImages if form == "compat" else LogisticMixtureImages

    @property
    def num_parameters(self) -> int:
        """Channels the decoder's head must supply per pixel."""
        return num_parameters(self.channels, self.mixtures)

    def network_input(self, x: Tensor) -> Tensor:
        """Returns uint8 images (N, C, *S) less the mean and over the std, float32."""
        return (x.float() - self.input_mean) * (1 / self.input_std)

    def __call__(self, params: Tensor) -> "LogisticMixtureImages":
        """Returns the distribution for head outputs (N, num_parameters, *S)."""
        return self._images(params, self.channels, self.bits)


@dataclass(frozen=True)
class LogisticMixtureImages:
    """The distribution over images for head outputs `params` (N, P, *S)."""

    params: Tensor
    channels: int
    bits: int

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns log-probabilities of uint8 images, nats per example, (N,)."""
        return -ops.logistic_mixture_nll(self.params, x >> (8 - self.bits), bits=self.bits)

    def sample(self, rng: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Returns a draw, uint8 (N, C, *S); `temperature` scales the logistic components."""
        levels = ops.logistic_mixture_sample(
            self.params,
            self.channels,
            rng=rng,
            stream=OUTPUT_STREAM,
            bits=self.bits,
            temperature=temperature,
        )
        image: Tensor = levels * 255 / (2**self.bits - 1)
        return image.round().to(torch.uint8)

    def mean(self) -> Tensor:
        """Returns the mean in image units 0..255, (N, C, *S), float32 or float64."""
        return (ops.logistic_mixture_mean(self.params, self.channels) + 1) * 127.5

    def mean_image(self) -> Tensor:
        """Returns the mean rounded to uint8, (N, C, *S)."""
        return self.mean().round().to(torch.uint8)


class CompatMixtureImages(LogisticMixtureImages):
    """The same under the published VDVAE's formula and its truncating draw."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns what the published code calls log-probabilities, nats per example, (N,)."""
        return -compat_nll(self.params, x, bits=self.bits)

    def sample(self, rng: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Returns a draw, uint8 (N, C, *S); `temperature` scales the logistic components."""
        return compat_sample(
            self.params, self.channels, rng=rng, stream=OUTPUT_STREAM, temperature=temperature
        )
