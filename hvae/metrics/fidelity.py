"""How close images come to those they stand for: PSNR and SSIM, image by image."""

import math

import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics.checks import check_images, to_float64
from hvae.metrics.torchmetrics_import import structural_similarity_index_measure

_PEAK = 255.0
_SIGMA = 1.5
_WINDOW = 11


def psnr(images: Tensor, reference: Tensor) -> Tensor:
    """Returns the peak signal-to-noise ratio of each image, dB, (N,) float64.

    10 log10(255^2 / MSE), the mean over all values of one image; the score of a set is the mean of
    these, not that of its mean MSE. Equal images would be infinitely good and make such a mean
    infinite: they count as those that differ by one level in one value, the best that can differ,
    10 log10(255^2 C H W).

    Args:
        images: uint8 (N, C, H, W).
        reference: the same.

    Raises:
        ValueError: they are no uint8 images of one shape.
    """
    a, b = _pair(images, reference)
    squared = (a - b).square().flatten(1).sum(1)
    per_image = math.prod(images.shape[1:])
    return 10 * torch.log10(_PEAK**2 * per_image / squared.clamp(min=1))


def ssim(images: Tensor, reference: Tensor) -> Tensor:
    """Returns the structural similarity of each image, (N,) float64, 1 for equal images.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity" (2004):
    a Gaussian window of 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, range 255, channel by
    channel; the mean over channels and over all windows that lie inside the image.

    Args:
        images: uint8 (N, C, H, W), at least 11 x 11.
        reference: the same.

    Raises:
        ValueError: they are no uint8 images of one shape.
        UserError: they are smaller than the window.
    """
    a, b = _pair(images, reference)
    height, width = images.shape[2:]
    if min(height, width) < _WINDOW:
        raise UserError(
            f"SSIM has a window of {_WINDOW} x {_WINDOW} pixels, got images of {height} x {width}; "
            "use PSNR, or larger images"
        )
    _, at_pixel = structural_similarity_index_measure(
        a, b, sigma=_SIGMA, data_range=_PEAK, reduction="none", return_full_image=True
    )
    # Some versions of torchmetrics take the mean over its reflected borders too, some do not.
    border = _WINDOW // 2
    return at_pixel[..., border:-border, border:-border].flatten(1).mean(1)


def _pair(images: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    check_images(images)
    check_images(reference)
    if images.shape != reference.shape:
        raise ValueError(
            f"wanted images of one shape, got {tuple(images.shape)} and {tuple(reference.shape)}"
        )
    a = to_float64(images)
    return a, to_float64(reference).to(a.device)
