"""What `collect` measures of each image: features, sharpness, likeness to another image."""

import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics.collect import Images, Measure
from hvae.metrics.features import Extractor, in_chunks
from hvae.metrics.fidelity import psnr, ssim
from hvae.metrics.sharpness import sharpness_rows

FIDELITY = ("psnr", "ssim")  # the columns of `fidelity_to`


def features_by(extractor: Extractor) -> Measure:
    """Returns a measure: the features of an extractor, float32 (n, dim)."""

    def measure(first: int, images: list[Tensor]) -> Tensor:
        return in_chunks(extractor, images, first)

    return measure


def sharpness_of() -> Measure:
    """Returns a measure: `sharpness_rows`, float64 (n, d), for all sets that are compared.

    Its images have to be of one size in all of them, at least 3 x 3: a frequency of one size is
    another of the next, though there may be as many.
    """
    sizes: set[tuple[int, ...]] = set()

    def measure(first: int, images: list[Tensor]) -> Tensor:
        sizes.update(tuple(image.shape[1:]) for image in images)
        if len(sizes) > 1:
            raise UserError(f"sharpness compares images of one size, got {_by(sizes)}; give --size")
        if min(min(size) for size in sizes) < 3:
            raise UserError(f"sharpness wants images of at least 3 x 3 pixels, got {_by(sizes)}")
        return sharpness_rows(_stacked(images))

    return measure


def fidelity_to(originals: Images) -> Measure:
    """Returns a measure: PSNR in dB and SSIM to the original of the same place, float64 (n, 2)."""

    def measure(first: int, images: list[Tensor]) -> Tensor:
        made = _stacked(images)
        wanted = _stacked(originals.take(first, first + len(images))).to(made.device)
        return torch.stack([psnr(made, wanted), ssim(made, wanted)], dim=1)

    return measure


def _stacked(images: list[Tensor]) -> Tensor:
    if len(sizes := {tuple(image.shape) for image in images}) > 1:
        raise UserError(
            f"sharpness and fidelity want images of one size, got {sorted(sizes)[:3]}; give --size"
        )
    return torch.stack(images)


def _by(sizes: set[tuple[int, ...]]) -> str:
    return ", ".join(" x ".join(map(str, size)) for size in sorted(sizes)[:3])
