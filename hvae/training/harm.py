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


@dataclass(frozen=True)
class Quality:
    """What is compared of refined and of unrefined images."""

    psnr: float
    colour: Tensor  # (C,) means of reconstructions, grey levels
    recall: float


@torch.no_grad()
def quality(model: HVAE, test: Chosen, seed: int, *, refined: bool) -> Quality:
    """Returns how good reconstructions of test images, and samples, are.

    Args:
        model: with its refiner, if they are to be refined.
        test: images that neither was trained on.
        seed: of the draws.
        refined: whether they are.
    """
    originals = torch.stack(test.take(0, len(test))).to(model.device)
    told = told_by(model, test)
    cond = told and told(0, len(test))
    rebuilt = reconstruct(model, originals, seed=seed, cond=cond, refined=refined)
    drawn = model.sample(len(test), output="mean", seed=seed, cond=cond, refined=refined)
    return Quality(
        psnr=psnr(rebuilt, originals).mean().item(),
        colour=rebuilt.double().mean((0, *range(2, rebuilt.ndim))),
        recall=prdc(_shapes(drawn), _shapes(originals)).recall,
    )


def find_harm(model: HVAE, test: Chosen, seed: int, before: Quality | None = None) -> Harm:
    """Returns what the refiner of a model does to reconstructions and samples.

    Args:
        model, test, seed: as `quality`.
        before: that of unrefined images, where it is known.
    """
    before = before or quality(model, test, seed, refined=False)
    after = quality(model, test, seed, refined=True)
    return Harm(
        psnr=before.psnr - after.psnr,
        colour=(after.colour - before.colour).abs().max().item(),
        recall=after.recall / before.recall if before.recall else 1.0,
    )


def _shapes(images: Tensor) -> Tensor:
    """Coarse copies of images as features (N, d)."""
    factor = max(1, min(images.shape[2:]) // _POOLED)
    sides = [side - side % factor for side in images.shape[2:]]
    inner = (slice(None), slice(None), *(slice(0, side) for side in sides))
    return average_pool(images.float()[inner], factor).flatten(1)
