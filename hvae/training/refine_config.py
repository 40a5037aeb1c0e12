"""The `refine` section: an adversarial stage on a trained and frozen model."""

import math
from typing import Literal

from pydantic import Field

from hvae.losses.adversarial import Pairing
from hvae.models.discriminator import DiscriminatorConfig
from hvae.models.refiner import RefinerConfig
from hvae.section import Section

# Of the penalty, by the side of images in pixels. 64 and 256 are R3GAN's (arXiv 2501.05441) for
# faces, 128 lies between, and 32 is what was measured on small grey images.
GAMMAS = {32: 0.02, 64: 2.0, 128: 15.0, 256: 150.0}


class RefineWeights(Section):
    """Weights of what the refiner minimises."""

    adversarial: float = Field(default=1.0, ge=0.0)
    """That made images pass for real ones; samples and reconstructions alike."""

    l1: float = Field(default=10.0, ge=0.0)
    """Mean absolute distance of reconstructions to their images, data in [-1, 1]."""

    features: float = Field(default=10.0, ge=0.0)
    """The same of the discriminator's feature maps, relative to their size."""

    perceptual: float = Field(default=1.0, ge=0.0)
    """Distance in the network that `perceptual` names, if it names one."""

    lowpass: float = Field(default=10.0, ge=0.0)
    """Squared distance of 4 x 4 means: content and colour must not move. On reconstructions; on
    samples too where nothing inside the ladder is corrected."""


class HarmConfig(Section):
    """What refinement may cost at most, on test images; see `hvae.training.harm`."""

    images: int = Field(default=256, ge=16)
    """Test images, reconstructed, and samples that are looked at."""

    psnr: float = Field(default=1.0, gt=0.0)
    """Decibels that reconstructions may lose."""

    colour: float = Field(default=8.0, gt=0.0)
    """Grey levels that the mean of a channel may move."""

    recall: float = Field(default=0.7, ge=0.0, le=1.0)
    """Share of the recall of unrefined samples that has to stay."""

    margin: float = Field(default=100.0, gt=0.0)
    """Mean of D(x) - D(x~), of either sign; beyond it the discriminator has run away."""

    most: int = Field(default=2, ge=0)
    """Times that the adversary is weakened before the stage is given up."""


class PriorConfig(Section):
    """The stage after, `unfreeze: prior`, which makes another model of a refined run."""

    lr: float = Field(default=3e-5, gt=0.0)
    """Learning rate of priors and of the path down the ladder."""

    adversarial: float = Field(default=0.05, ge=0.0)
    """Weight of the adversary beside the ELBO in nats per dimension."""

    ramp: float = Field(default=0.2, ge=0.0, le=1.0)
    """Share of the stage over which that weight rises from 0."""

    budget: float = Field(default=0.01, ge=0.0)
    """What bits/dim of `harm.images` test images may rise by, as a fraction."""

    ema: float = Field(default=0.999, ge=0.0, lt=1.0)
    """Decay of the averaged weights, which are what is kept."""


class RefineConfig(Section):
    """How a refiner and its discriminator are trained."""

    images: int = Field(default=100_000, ge=2)
    """Length of the stage in real images."""

    batch: int = Field(default=32, ge=2)
    """Real images a step. They stand against as many samples; where the output is refined, half of
    them are reconstructed instead."""

    lr: float = Field(default=1e-4, gt=0.0)
    """Learning rate of the refiner. It must be far below the discriminator's: a step inside the
    ladder moves an image by much."""

    lr_discriminator: float = Field(default=2e-3, gt=0.0)
    """Learning rate of the discriminator."""

    lr_final: float = Field(default=0.05, gt=0.0, le=1.0)
    """What a cosine lowers both to, as a fraction."""

    gamma: float | None = Field(default=None, ge=0.0)
    """Weight of the penalties on the discriminator's gradient at real and made images. Null: by the
    size of the images."""

    gamma_final: float = Field(default=1.0, gt=0.0, le=1.0)
    """What a cosine lowers gamma to over the first half, as a fraction."""

    margin: float | None = Field(default=1.5, gt=0.0)
    """Mean of D(x) - D(x~) that gamma is adapted to. Null: gamma keeps to its schedule."""

    penalty_every: int = Field(default=4, ge=1)
    """Steps between penalties, which then weigh as many times more."""

    judged: Literal["both", "samples", "reconstructions"] = "samples"
    """What the discriminator sees. Reconstructions, where they are refined, have other losses."""

    pairing: Pairing = "relativistic"
    """Form of the adversarial losses."""

    lecam: float = Field(default=0.0, ge=0.0)
    """Weight of a bound on logits by their running averages, for `pairing: hinge`."""

    augment: float = Field(default=0.0, ge=0.0, le=0.8)
    """Probability of each change to what the discriminator sees (`hvae.losses.augment`), from 0
    over the first half; 0.3 for a few thousand images."""

    perceptual: str | None = None
    """Extractor whose feature maps reconstructions are compared in, as `hvae fid --features` names
    it: lite0, inception. Scores of the same extractor then flatter the result."""

    temperatures: tuple[float, float] = (0.8, 1.0)
    """Samples of a step have a temperature between these."""

    ema: float = Field(default=0.999, ge=0.0, lt=1.0)
    """Decay of the averaged refiner, which is what is used."""

    log_every: int = Field(default=1_600, ge=1)
    """Images between rows of refine/metrics.jsonl."""

    sample_every: int = Field(default=16_000, ge=1)
    """Images between sheets that show unrefined images beside refined ones."""

    checkpoint_every: int = Field(default=8_000, ge=1)
    """Images between checks for harm; what passes one is saved."""

    unfreeze: Literal["none", "prior"] = "none"
    """What of a refined run's model is trained on, in a run of its own (RUN/prior)."""

    weights: RefineWeights = RefineWeights()
    prior: PriorConfig = PriorConfig()
    harm: HarmConfig = HarmConfig()
    refiner: RefinerConfig = RefinerConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()

    def gamma_at(self, side: int) -> float:
        """Returns gamma at the start, for images of so many pixels on their shorter side."""
        if self.gamma is not None:
            return self.gamma
        sides = sorted(GAMMAS)
        side = min(max(side, sides[0]), sides[-1])
        low = max(known for known in sides if known <= side)
        high = min(known for known in sides if known >= side)
        share = 0.0 if low == high else math.log(side / low) / math.log(high / low)
        return math.exp((1 - share) * math.log(GAMMAS[low]) + share * math.log(GAMMAS[high]))
