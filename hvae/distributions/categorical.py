"""A free probability for each level of each value."""

import torch
from torch import Tensor

from hvae.distributions.levels import position, to_grey, to_image
from hvae.distributions.pixels import PixelImages, PixelLikelihood, sum_image
from hvae.ops.philox import OUTPUT_STREAM


class Categorical(PixelLikelihood):
    """The family P(k) = softmax(a)_k over L = 2^bits levels, L logits per value.

    van den Oord et al., "Pixel Recurrent Neural Networks", arXiv 1601.06759. The
    logits of channel c are parameters L c to L c + L - 1. Levels have no order here: what is
    learned of one says nothing about its neighbours. Constructor: see `PixelLikelihood`.
    """

    kind = "categorical"

    @property
    def num_parameters(self) -> int:
        """Channels the decoder's head must supply per pixel."""
        levels: int = 2**self.bits
        return self.channels * levels

    def _images(self, params: Tensor) -> "CategoricalImages":
        return CategoricalImages(params, self.channels, self.bits)


class CategoricalImages(PixelImages):
    """The distribution over images for head outputs `params` (N, C L, *S)."""

    def mean(self) -> Tensor:
        """Returns the mean in image units 0..255, (N, C, *S), float32 or float64."""
        masses = self._logits().softmax(2)
        levels = torch.arange(2**self.bits, device=masses.device)
        places = position(levels, self.bits, masses.dtype).view(-1, *[1] * (masses.ndim - 3))
        # Not a matrix product, which autocast would take to half precision.
        return to_grey((masses * places).sum(2))

    def _log_prob(self, levels: Tensor, rng: Tensor | None) -> Tensor:
        log_masses = self._logits().log_softmax(2)
        return sum_image(log_masses.gather(2, levels.long().unsqueeze(2)).squeeze(2))

    def _sample(self, rng: Tensor, temperature: float) -> Tensor:
        logits = self._logits()
        if temperature == 0:
            return to_image(logits.argmax(2), self.bits)
        # The last level also takes what rounding leaves of the unit interval.
        cdf = (logits / temperature).softmax(2).cumsum(2)[:, :, :-1]
        uniform = self._uniform(rng, OUTPUT_STREAM).unsqueeze(2)
        return to_image((uniform > cdf).sum(2), self.bits)

    def _logits(self) -> Tensor:
        """(N, C, L, *S)."""
        logits: Tensor = self._wide().unflatten(1, (self.channels, 2**self.bits))
        return logits
