"""One normal or one logistic per value, cut into the masses of its levels."""

from abc import abstractmethod

import torch
from torch import Tensor

from hvae.distributions.levels import nearest_level, to_grey, to_image
from hvae.distributions.log_mass import logistic_log_mass, normal_log_mass, soft_log_scale
from hvae.distributions.pixels import PixelImages, PixelLikelihood, sum_image
from hvae.ops.philox import OUTPUT_STREAM


class LocationScale(PixelLikelihood):
    """Families with 2C parameters per pixel: C locations mu, then C raw log-scales.

    mu is the head's output itself, unbounded, on the scale where the levels span [-1, 1]; ln s is
    its other output, softly kept above -7.
    """

    @property
    def num_parameters(self) -> int:
        """Channels the decoder's head must supply per pixel."""
        return 2 * self.channels


class DiscretizedGaussian(LocationScale):
    """The family P(k) = Phi((t + d - mu) / s) - Phi((t - d - mu) / s), tails at the end levels.

    Ho et al., arXiv 2006.11239, equation 13, with a learned s. Constructor: see `PixelLikelihood`.
    """

    kind = "discretized_gaussian"

    def _images(self, params: Tensor) -> "DiscretizedGaussianImages":
        return DiscretizedGaussianImages(params, self.channels, self.bits)


class DiscretizedLogistic(LocationScale):
    """The family P(k) = sigmoid((t + d - mu) / s) - sigmoid((t - d - mu) / s), tails at the ends.

    Kingma et al., arXiv 1606.04934, with the end levels of PixelCNN++, arXiv 1701.05517.
    Constructor: see `PixelLikelihood`.
    """

    kind = "discretized_logistic"

    def _images(self, params: Tensor) -> "DiscretizedLogisticImages":
        return DiscretizedLogisticImages(params, self.channels, self.bits)


class LocationScaleImages(PixelImages):
    """The distribution over images for head outputs `params` (N, 2C, *S)."""

    def location_scale(self) -> tuple[Tensor, Tensor]:
        """Returns mu and ln s, (N, C, *S) each, float32 or float64."""
        location, raw = self._wide().chunk(2, dim=1)
        return location, soft_log_scale(raw)

    def draw(self, rng: Tensor, temperature: float = 1.0) -> Tensor:
        """Returns a draw before it is rounded to a level, (N, C, *S), float32 or float64."""
        location, log_scale = self.location_scale()
        return location + temperature * log_scale.exp() * self._noise(rng)

    def _sample(self, rng: Tensor, temperature: float) -> Tensor:
        return to_image(nearest_level(self.draw(rng, temperature), self.bits), self.bits)

    @abstractmethod
    def _noise(self, rng: Tensor) -> Tensor:
        """Draws at location 0 and scale 1, (N, C, *S)."""


class DiscretizedImages(LocationScaleImages):
    """The distribution over images for head outputs `params` (N, 2C, *S), by masses of levels."""

    def _log_prob(self, levels: Tensor, rng: Tensor | None) -> Tensor:
        location, log_scale = self.location_scale()
        return sum_image(self._log_mass(levels, location, log_scale))

    def mean(self) -> Tensor:
        """Returns the mean in image units 0..255, (N, C, *S), float32 or float64.

        Exact, with what the end levels take from the tails: L - 1 evaluations of the distribution
        function, each of which a gradient keeps. With bin edges e_k below levels k = 1..L-1,

            E[t] = -1 + 2 / (L - 1) sum_k F((mu - e_k) / s).
        """
        location, log_scale = self.location_scale()
        inverse_scale, last = log_scale.neg().exp(), 2**self.bits - 1
        total = torch.zeros_like(location)
        for level in range(1, last + 1):
            edge = (2 * level - 1 - last) / last
            total = total + self._cdf((location - edge) * inverse_scale)
        return to_grey(2 / last * total - 1)

    @abstractmethod
    def _log_mass(self, levels: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """Log-masses of levels, (N, C, *S)."""

    @abstractmethod
    def _cdf(self, standardised: Tensor) -> Tensor:
        """F, the probability of a value below `standardised` at location 0 and scale 1."""


class DiscretizedGaussianImages(DiscretizedImages):
    """The distribution over images for head outputs `params` (N, 2C, *S)."""

    def _log_mass(self, levels: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        return normal_log_mass(levels, location, log_scale, self.bits)

    def _cdf(self, standardised: Tensor) -> Tensor:
        probability: Tensor = torch.special.ndtr(standardised)
        return probability

    def _noise(self, rng: Tensor) -> Tensor:
        return self._normal(rng)


class DiscretizedLogisticImages(DiscretizedImages):
    """The distribution over images for head outputs `params` (N, 2C, *S)."""

    def _log_mass(self, levels: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        return logistic_log_mass(levels, location, log_scale, self.bits)

    def _cdf(self, standardised: Tensor) -> Tensor:
        return torch.sigmoid(standardised)

    def _noise(self, rng: Tensor) -> Tensor:
        noise: Tensor = self._uniform(rng, OUTPUT_STREAM).logit()
        return noise
