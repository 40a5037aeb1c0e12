"""Discretised logistic mixture over images of any number of channels."""

from typing import Literal

from torch import Tensor

from hvae import ops
from hvae.distributions import general_mixture
from hvae.distributions.compat_mixture import compat_nll, compat_sample
from hvae.distributions.levels import to_grey, to_image
from hvae.distributions.pixels import PixelImages, PixelLikelihood, sum_image
from hvae.errors import UserError
from hvae.ops.mixture import MixtureParameters, mixture_mean
from hvae.ops.philox import OUTPUT_STREAM


class LogisticMixture(PixelLikelihood):
    """The family of discretised logistic mixtures; see `hvae.ops.logistic_mixture_nll`.

    name        default  meaning
    channels             C; one, and three coupled ones, run the fused op
    mixtures    10       components
    bits        8        bit depth that is modelled: levels are the images' upper bits
    form        "exact"  or "compat", see `hvae.distributions.compat_mixture`
    coupled     True     each channel shifts the means of later ones within a pixel
    input_mean  127.5    subtracted from the pixels that enter the network
    input_std   127.5    what they are then divided by

    Means are the head's outputs themselves, on the scale where the levels span [-1, 1]. Bits below
    8 are as in `PixelLikelihood`.
    """

    kind = "logistic_mixture"

    def __init__(
        self,
        channels: int,
        *,
        mixtures: int = 10,
        bits: int = 8,
        form: Literal["exact", "compat"] = "exact",
        coupled: bool = True,
        input_mean: float = 127.5,
        input_std: float = 127.5,
    ) -> None:
        super().__init__(channels, bits=bits, input_mean=input_mean, input_std=input_std)
        if mixtures < 1:
            raise UserError(f"a logistic_mixture has at least 1 component, got {mixtures}")
        self.mixtures, self.form = mixtures, form
        # A single channel has nothing to be coupled with.
        self.coupled = coupled or channels == 1
        if form == "compat" and not (self.coupled and channels in (1, 3)):
            what = f"{channels} channels" if self.coupled else f"{channels} channels, not coupled"
            raise UserError(
                f"form compat models 1 channel or 3 coupled ones, as published; got {what}; "
                "use form exact"
            )

    @property
    def num_parameters(self) -> int:
        """Channels the decoder's head must supply per pixel."""
        return general_mixture.num_parameters(self.channels, self.mixtures, self.coupled)

    @property
    def measures(self) -> str:
        """What bits per dimension of its log-probabilities are bits of, in words for a report."""
        if self.form == "exact":
            return super().measures
        caveat = ", which is no likelihood at fewer than 8" if self.bits < 8 else ""
        return f"{super().measures} by the published VDVAE's formula{caveat}"

    def _images(self, params: Tensor) -> PixelImages:
        if self.form == "compat":
            return CompatMixtureImages(params, self.channels, self.bits)
        if self.coupled and self.channels in (1, 3):
            return LogisticMixtureImages(params, self.channels, self.bits)
        if self.coupled:
            return GeneralMixtureImages(params, self.channels, self.bits)
        return IndependentMixtureImages(params, self.channels, self.bits)


class LogisticMixtureImages(PixelImages):
    """The distribution over images of one channel or three coupled ones, by the fused op."""

    def mean(self) -> Tensor:
        """Returns the mean in image units 0..255, (N, C, *S), float32 or float64.

        What the end levels collect from the tails is ignored.
        """
        return to_grey(ops.logistic_mixture_mean(self.params, self.channels))

    def _log_prob(self, levels: Tensor, rng: Tensor | None) -> Tensor:
        return -ops.logistic_mixture_nll(self.params, levels, bits=self.bits)

    def _sample(self, rng: Tensor, temperature: float) -> Tensor:
        levels = ops.logistic_mixture_sample(
            self.params,
            self.channels,
            rng=rng,
            stream=OUTPUT_STREAM,
            bits=self.bits,
            temperature=temperature,
        )
        return to_image(levels, self.bits)


class CompatMixtureImages(LogisticMixtureImages):
    """The same under the published VDVAE's formula and its truncating draw."""

    def log_prob(self, x: Tensor, *, rng: Tensor | None = None) -> Tensor:
        """Returns what the published code calls log-probabilities, nats per example, (N,)."""
        self._check(x)
        return -compat_nll(self.params, x, bits=self.bits)

    def _sample(self, rng: Tensor, temperature: float) -> Tensor:
        return compat_sample(
            self.params, self.channels, rng=rng, stream=OUTPUT_STREAM, temperature=temperature
        )


class GeneralMixtureImages(PixelImages):
    """The distribution over images of any number of channels, in PyTorch."""

    coupled = True

    def mean(self) -> Tensor:
        """Returns the mean in image units 0..255; see `LogisticMixtureImages.mean`."""
        return to_grey(mixture_mean(self._split()))

    def _log_prob(self, levels: Tensor, rng: Tensor | None) -> Tensor:
        return sum_image(general_mixture.mixture_log_prob(self._split(), levels, self.bits))

    def _sample(self, rng: Tensor, temperature: float) -> Tensor:
        levels = general_mixture.mixture_sample(
            self._split(), rng=rng, stream=OUTPUT_STREAM, bits=self.bits, temperature=temperature
        )
        return to_image(levels, self.bits)

    def _split(self) -> MixtureParameters:
        return general_mixture.split(self._wide(), self.channels, self.coupled)


class IndependentMixtureImages(GeneralMixtureImages):
    """The same without coupling: given its component, the channels of a pixel are independent."""

    coupled = False
