"""A normal density per value; images are dequantised to be scored."""

import math

from torch import Tensor

from hvae.distributions.discretized import LocationScale, LocationScaleImages
from hvae.distributions.levels import position, to_grey
from hvae.distributions.pixels import sum_image
from hvae.ops.philox import DEQUANTISATION_STREAM


class Gaussian(LocationScale):
    """The family N(mu, s^2) over continuous values, learned mu and s for each.

    A level k is scored as one draw v uniform in its bin, [t - d, t + d], by the density per level,
    p(v) 2d. Its expected logarithm is a lower bound on the log of the mass that p has in the bin
    (Theis et al., arXiv 1511.01844), so bits per dimension are comparable with those
    of masses, from above. Importance samples draw v anew, so K of them tighten that bound as well.
    Constructor: see `PixelLikelihood`.
    """

    kind = "gaussian"
    by_pixel = False  # its noise is drawn by place in the image

    @property
    def measures(self) -> str:
        """What bits per dimension of its log-probabilities are bits of, in words for a report."""
        return (
            "bits/dim of a density under uniform dequantisation, an upper bound on "
            f"{super().measures}"
        )

    def _images(self, params: Tensor) -> "GaussianImages":
        return GaussianImages(params, self.channels, self.bits)


class GaussianImages(LocationScaleImages):
    """The distribution over images for head outputs `params` (N, 2C, *S)."""

    def log_density(self, value: Tensor) -> Tensor:
        """Returns ln p of values on the scale where levels span [-1, 1], nats each, (N, C, *S)."""
        location, log_scale = self.location_scale()
        standardised = (value - location) * log_scale.neg().exp()
        return -standardised.square() / 2 - log_scale - 0.5 * math.log(2 * math.pi)

    def dequantised(self, levels: Tensor, rng: Tensor | None) -> Tensor:
        """Returns values drawn uniformly from the bins of levels (N, C, *S)."""
        noise = self._uniform(rng, DEQUANTISATION_STREAM)
        return position(levels, self.bits, noise.dtype) + (2 * noise - 1) * self._half_bin

    def mean(self) -> Tensor:
        """Returns the mean of the density in image units, cut to 0..255, (N, C, *S)."""
        location, _ = self.location_scale()
        return to_grey(location.clamp(-1, 1))

    def _log_prob(self, levels: Tensor, rng: Tensor | None) -> Tensor:
        log_density = self.log_density(self.dequantised(levels, rng))
        return sum_image(log_density + math.log(2 * self._half_bin))

    @property
    def _half_bin(self) -> float:
        return 1.0 / (int(2**self.bits) - 1)

    def _noise(self, rng: Tensor) -> Tensor:
        return self._normal(rng)
