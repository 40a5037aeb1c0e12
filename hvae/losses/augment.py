"""Changes to what a discriminator sees, so that it cannot learn a small set by heart.

Flips, shifts and holes, which the refiner does not learn to make as long as they are rarer than not
(Karras et al., arXiv 2006.06676), each differentiable as often as is asked for.
"""

import torch
from torch import Tensor

from hvae.ops.philox import philox_uniform

_STREAM = 0  # under a seed of its own
_SHIFT, _HOLE = 1 / 8, 1 / 5  # of a side


def augment(images: Tensor, probability: float, rng: Tensor) -> Tensor:
    """Returns images of which some are mirrored, some moved and some have a hole.

    Args:
        images: floating (N, C, *S); the last axis is the one that is mirrored.
        probability: of each change to an image.
        rng: int64 (2,), seed and index of the first image; image i is changed alike in any batch.
    """
    if probability <= 0:
        return images
    sides = images.shape[2:]
    u = philox_uniform(rng, _STREAM, 1 + len(sides), len(images))
    happens = u[:, 0, :3] < probability
    images = torch.where(_at_rows(happens[:, 0], images), images.flip(-1), images)
    hole = _at_rows(happens[:, 2], images)
    for axis, side in enumerate(sides):
        reach = int(side * _SHIFT)
        shift = (u[:, 1 + axis, 0] * (2 * reach + 1)).floor().long() - reach
        images = _moved(images, 2 + axis, shift * happens[:, 1])
        hole = hole & _inside(images, 2 + axis, u[:, 1 + axis, 1], side * _HOLE)
    return images.masked_fill(hole, 0.0)


def _moved(images: Tensor, axis: int, shift: Tensor) -> Tensor:
    """Moves each image along an axis; what comes in is what stood at the border."""
    side = images.shape[axis]
    places = torch.arange(side, device=images.device) - shift[:, None]
    index = places.clamp(0, side - 1).view(
        -1, *[1] * (axis - 1), side, *[1] * (images.ndim - axis - 1)
    )
    return images.gather(axis, index.expand_as(images))


def _inside(images: Tensor, axis: int, centre: Tensor, width: float) -> Tensor:
    """Whether places on an axis lie within half a width of a centre, which is a share of it."""
    places = torch.arange(images.shape[axis], device=images.device) + 0.5
    near = (places - centre[:, None] * images.shape[axis]).abs() < width / 2
    return near.view(len(images), *[1] * (axis - 1), -1, *[1] * (images.ndim - axis - 1))


def _at_rows(flags: Tensor, images: Tensor) -> Tensor:
    return flags.view(-1, *[1] * (images.ndim - 1))
