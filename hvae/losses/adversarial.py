"""What a refiner and its discriminator minimise.

Logits are high for real images. x is real, x~ is made; D(x) are logits (N,), and fakes stand at the
place of the real image that they are paired with.

    relativistic    L_D = E softplus(D(x~) - D(x))                 L_G = E softplus(D(x) - D(x~))
    hinge           L_D = E relu(1 - D(x)) + E relu(1 + D(x~))     L_G = -E D(x~)
    non-saturating  L_D = E softplus(-D(x)) + E softplus(D(x~))    L_G = E softplus(-D(x~))

Relativistic pairing: Jolicoeur-Martineau (arXiv 1807.00734), with both penalties as in R3GAN (arXiv
2501.05441), where it converges locally. The others are alternatives, of which the hinge goes with
`lecam` (Tseng et al., arXiv 2104.03310).
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hvae.nn.resample import average_pool

Pairing = Literal["relativistic", "hinge", "non_saturating"]


def discriminator_loss(real: Tensor, fake: Tensor, pairing: Pairing = "relativistic") -> Tensor:
    """Returns L_D of logits (N,), a scalar."""
    if pairing == "relativistic":
        return F.softplus(fake - real).mean()
    if pairing == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(real: Tensor, fake: Tensor, pairing: Pairing = "relativistic") -> Tensor:
    """Returns L_G of logits (N,), a scalar."""
    if pairing == "relativistic":
        return F.softplus(real - fake).mean()
    if pairing == "hinge":
        return -fake.mean()
    return F.softplus(-fake).mean()


def gradient_penalty(images: Tensor, logits: Tensor, maps: Sequence[Tensor] = ()) -> Tensor:
    """Returns E |grad_x D(x)|^2, a scalar that can be differentiated again.

    The sum over values, the mean over images. R1 at real images (Mescheder et al., arXiv
    1801.04406), R2 at made ones; the loss has half of gamma times each.

    Args:
        images: (N, C, *S) floating, that `logits` were computed from, requiring a gradient.
        logits: (N,) D of them; image i must move logit i alone.
        maps: (N, ...) what else they were computed from; its gradient counts as that of images.

    Raises:
        ValueError: the images or maps require no gradient.
        RuntimeError: an op between them has no second derivative.
    """
    inputs = [images, *maps]
    if not all(x.requires_grad for x in inputs):
        raise ValueError("the penalty needs images that require a gradient")
    gradients = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    if not all(gradient.requires_grad for gradient in gradients):
        raise RuntimeError(
            "the penalty cannot be differentiated: an op between images and logits has no second "
            "derivative, or no weight is trained"
        )
    return torch.stack([g.square().flatten(1).sum(1).mean() for g in gradients]).sum()


def lecam(real: Tensor, fake: Tensor, average_real: Tensor, average_fake: Tensor) -> Tensor:
    """Returns E relu(D(x) - a_F)^2 + E relu(a_R - D(x~))^2, a scalar.

    Holds logits near the running averages of the other kind, for few images.

    Args:
        real, fake: logits (N,).
        average_real, average_fake: running averages of them, scalars without gradients.
    """
    above = F.relu(real - average_fake).square().mean()
    below = F.relu(average_real - fake).square().mean()
    return above + below


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Returns the mean over maps of |f(x) - f(x~)|_1 / |f(x)|_1, a scalar.

    Larsen et al. (arXiv 1512.09300), each map by its own size so that none outweighs the others.

    Args:
        fake: feature maps (N, C, *S) of reconstructions.
        real: those of the images they stand for; taken without gradients.
    """
    ratios = [
        (made - wanted.detach()).abs().mean() / (wanted.detach().abs().mean() + 1e-8)
        for made, wanted in zip(fake, real, strict=True)
    ]
    return torch.stack(ratios).mean()


def low_pass(fake: Tensor, wanted: Tensor, factor: int = 4) -> Tensor:
    """Returns E |P(x~) - P(x)|^2 over means of `factor` pixels a side, a scalar.

    What is sharpened must not move content or colour.

    Args:
        fake: (N, C, *S).
        wanted: the same; sides that `factor` does not divide are cut at their end.
    """
    sides = [side - side % factor for side in fake.shape[2:]]
    inner = (slice(None), slice(None), *(slice(0, side) for side in sides))
    return F.mse_loss(average_pool(fake[inner], factor), average_pool(wanted[inner], factor))
