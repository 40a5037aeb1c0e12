"""What the model asks of a likelihood.

A `Likelihood` is the family: it knows how many numbers per pixel it needs and how data is scaled
into the network. Given those numbers it returns a `Distribution` over images.
"""

from typing import Protocol

from torch import Tensor


class Distribution(Protocol):
    """A distribution over images (N, C, *S) of uint8."""

    def log_prob(self, x: Tensor, *, rng: Tensor | None = None) -> Tensor:
        """Returns log-probabilities in nats, summed over an example, (N,), float32 or float64.

        `rng` (see `hvae.ops.philox.make_rng`) is the noise of densities, which dequantise the
        images; the others do not read it. Default: (0, 0).
        """

    def sample(self, rng: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Returns a draw, uint8 (N, C, *S); `rng` as in `hvae.ops.philox.make_rng`."""

    def mean(self) -> Tensor:
        """Returns the mean in image units 0..255, floating point (N, C, *S); differentiable."""

    def mean_image(self) -> Tensor:
        """Returns the mean rounded to uint8, (N, C, *S)."""


class Likelihood(Protocol):
    """A family of distributions over images."""

    @property
    def num_parameters(self) -> int:
        """Channels the decoder's head must supply per pixel."""

    @property
    def measures(self) -> str:
        """What bits per dimension of its log-probabilities are bits of, in words for a report."""

    @property
    def kind(self) -> str:
        """Its name in a configuration."""

    @property
    def by_pixel(self) -> bool:
        """Whether the log-probability of an image is the sum of those of its parts."""

    def network_input(self, x: Tensor) -> Tensor:
        """Returns uint8 images (N, C, *S) scaled for the encoder, float32."""

    def __call__(self, params: Tensor) -> Distribution:
        """Returns the distribution for head outputs (N, num_parameters, *S)."""
