"""Whether refinement has begun to ruin what it should sharpen, on images held out."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from hvae.data.originals import Chosen
from hvae.inference import reconstruct
from hvae.metrics.fidelity import psnr
from hvae.metrics.neighbours import prdc
from hvae.models import HVAE
from hvae.nn.resample import average_pool
from hvae.training.refine_config import HarmConfig
from hvae.training.sample_quality import told_by

_POOLED = 8  # recall is that of images of about this side: of shapes and colours


@dataclass(frozen=True)
class Harm:
    """What refined images differ by from unrefined ones of the same latents.

    Attributes:
        psnr: decibels that reconstructions have lost.
        colour: grey levels that the mean of a channel of reconstructions has moved, the most of any
            channel.
        recall: of refined samples by that of unrefined ones, in images pooled to about 8 x 8.
    """

    psnr: float
    colour: float
    recall: float

    def beyond(self, limits: HarmConfig) -> str | None:
        """Returns what is worse than it may be, in words; None for nothing."""
        found = []
        if not self.psnr <= limits.psnr:
            found.append(f"reconstructions lost {self.psnr:.2f} dB, allowed are {limits.psnr:g}")
        if not self.colour <= limits.colour:
            found.append(
                f"colours moved by {self.colour:.1f} levels, allowed are {limits.colour:g}"
            )
        if not self.recall >= limits.recall:
            found.append(
                f"recall fell to {self.recall:.0%}, at least {limits.recall:.0%} is wanted"
            )
        return "; ".join(found) or None

    def row(self) -> dict[str, float]:
        """What a row of the log says of it."""
        return {f"harm_{name}": value for name, value in asdict(self).items()}


@torch.no_grad()
def find_harm(model: HVAE, test: Chosen, seed: int) -> Harm:
    """Returns what the refiner of a model does to reconstructions and samples.

    Args:
        model: with its refiner.
        test: images that neither was trained on.
        seed: of the draws.
    """
    originals = torch.stack(test.take(0, len(test))).to(model.device)
    told = told_by(model, test)
    cond = told and told(0, len(test))
    rebuilt, drawn = [], []
    for refined in (False, True):
        rebuilt.append(reconstruct(model, originals, seed=seed, cond=cond, refined=refined))
        drawn.append(model.sample(len(test), output="mean", seed=seed, cond=cond, refined=refined))
    before, after = (psnr(images, originals).mean().item() for images in rebuilt)
    means = [images.double().mean((0, *range(2, images.ndim))) for images in rebuilt]
    real = _shapes(originals)
    recalls = [prdc(_shapes(images), real).recall for images in drawn]
    return Harm(
        psnr=before - after,
        colour=(means[1] - means[0]).abs().max().item(),
        recall=recalls[1] / recalls[0] if recalls[0] else 1.0,
    )


def _shapes(images: Tensor) -> Tensor:
    """Coarse copies of images as features (N, d)."""
    factor = max(1, min(images.shape[2:]) // _POOLED)
    sides = [side - side % factor for side in images.shape[2:]]
    inner = (slice(None), slice(None), *(slice(0, side) for side in sides))
    return average_pool(images.float()[inner], factor).flatten(1)
