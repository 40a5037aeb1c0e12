"""Images through the model and back, from all latent groups or the coarsest ones alone."""

import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.models import HVAE


@torch.no_grad()
def reconstruct(
    model: HVAE,
    images: Tensor,
    *,
    groups: int | None = None,
    mode: str = "sample",
    seed: int = 0,
    first_index: int = 0,
    cond: Tensor | None = None,
    refined: bool | None = None,
) -> Tensor:
    """Returns reconstructions from the coarsest `groups` latent groups, uint8 (N, C, H, W).

    The kept groups come from the posterior, the others from the prior at temperature 0, and the
    image is the mean of the likelihood: x = E[p(x | z_1..k ~ q, z_k+1..L = prior means)].

    Args:
        model: its weights are used as they are.
        images: uint8 (N, C, H, W), on any device.
        groups: groups kept, 0 to `model.num_groups`; with 0 nothing of an image is left. None: all.
        mode: "sample" draws the posterior, "mean" takes its mean.
        seed: of the posterior draws.
        first_index: global index of the first image, which its draw goes by.
        cond: conditions of the images, for a conditional model.
        refined: through the model's refiner. None: if there is one.

    Raises:
        UserError: `groups` or `mode` is not as above, or the images do not fit the model.
    """
    kept = model.num_groups if groups is None else groups
    if not 0 <= kept <= model.num_groups:
        raise UserError(f"groups: wanted 0 to {model.num_groups}, got {groups}")
    x = images.to(model.device)
    latents = model.encode(x, cond, mode=mode, seed=seed, first_index=first_index)[:kept]
    if not latents:
        return model.sample(
            len(images), temperature=0.0, output="mean", cond=cond, seed=seed, refined=refined
        )
    return model.decode_image(latents, cond, seed=seed, refined=refined)
