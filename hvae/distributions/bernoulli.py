"""Bernoulli per value: binary images, and grey ones taken as probabilities."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hvae.distributions.pixels import PixelImages, PixelLikelihood, sum_image
from hvae.ops.philox import OUTPUT_STREAM


class Bernoulli(PixelLikelihood):
    """The family P(255) = sigmoid(a), P(0) = sigmoid(-a), with one logit a per value.

    A value x in 0..255 counts as the probability y = x / 255 of a 1:

        log p = sum of y ln sigmoid(a) + (1 - y) ln sigmoid(-a).

    Of an image of 0 and 255 alone that is its log-probability. Of a grey image it is what an image
    has on average that was made binary by drawing each pixel with probability y; it is no
    probability of the grey values, and stands beside no score of them (Salakhutdinov and Murray,
    ICML 2008, for the drawing). The mean is 255 sigmoid(a). Constructor: see `PixelLikelihood`,
    without `bits`.
    """

    kind = "bernoulli"

    def __init__(self, channels: int, **scaling: Any) -> None:
        super().__init__(channels, bits=8, **scaling)

    @property
    def num_parameters(self) -> int:
        """Channels the decoder's head must supply per pixel."""
        return self.channels

    @property
    def measures(self) -> str:
        """What bits per dimension of its log-probabilities are bits of, in words for a report."""
        return "bits/dim of binary values, a grey one counted as the probability of a 1"

    def _images(self, params: Tensor) -> "BernoulliImages":
        return BernoulliImages(params, self.channels, self.bits)


class BernoulliImages(PixelImages):
    """The distribution over images for head outputs `params` (N, C, *S)."""

    def mean(self) -> Tensor:
        """Returns the mean in image units 0..255, (N, C, *S), float32 or float64."""
        return 255 * self._wide().sigmoid()

    def _log_prob(self, levels: Tensor, rng: Tensor | None) -> Tensor:
        logits = self._wide()
        share = levels.to(logits.dtype) / 255
        return sum_image(share * F.logsigmoid(logits) + (1 - share) * F.logsigmoid(-logits))

    def _sample(self, rng: Tensor, temperature: float) -> Tensor:
        logits = self._wide()
        if temperature == 0:
            ones = logits > 0
        else:
            ones = self._uniform(rng, OUTPUT_STREAM) < (logits / temperature).sigmoid()
        return ones.to(torch.uint8) * 255
