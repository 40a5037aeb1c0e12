"""Whether generated images are as sharp as real ones: spectra, gradients and Laplacians."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hvae.metrics.base import Float64Metric
from hvae.metrics.checks import check_count, check_images, to_float64

# Grey levels squared: an eightieth of what rounding to integers adds at every frequency (1/12), so
# that it matters to blank images alone, whose logarithm would be infinite.
_LEAST_POWER = 1e-3


class Sharpness(Float64Metric):
    """Sharpness of generated images by that of real ones, over batches and ranks.

        name  default  meaning
        size  -        (H, W) of all images, at least 3 x 3

    The sharpest images are not the best: noise is sharp too. The target is a distance of 0 and
    ratios of 1.
    """

    higher_is_better = None

    def __init__(self, size: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if min(size) < 3:
            raise ValueError(f"wanted images of at least 3 x 3 pixels, got {size[0]} x {size[1]}")
        self.size = size
        for kind in ("real", "fake"):
            self.add_sum(f"{kind}_count")
            self.add_sum(f"{kind}_rows", 2 + min(size) // 2)

    def update(self, images: Tensor, real: bool) -> None:
        """Adds images.

        Args:
            images: uint8 (N, C, H, W).
            real: which kind they are.

        Raises:
            ValueError: they are no uint8 images, or of another size.
        """
        check_images(images)
        if images.shape[2:] != self.size:
            raise ValueError(f"wanted images of {self.size}, got {tuple(images.shape[2:])}")
        rows = sharpness_rows(images).to(self.state_device)
        kind = "real" if real else "fake"
        getattr(self, f"{kind}_rows").add_(rows.sum(0))
        getattr(self, f"{kind}_count").add_(len(rows))

    def compute(self) -> dict[str, Tensor]:
        """Returns float64 scalars.

        * `spectrum_distance`: mean over frequencies of |log P_fake - log P_real|, nats;
        * `gradient_ratio`: mean |grad x| of the fakes by that of the reals;
        * `laplacian_ratio`: the same of the variance of the Laplacian.

        A ratio is infinite or not a number where the reals are blank.

        Raises:
            UserError: there are less than two images of a kind.
        """
        return compare_sharpness(self._mean("fake"), self._mean("real"))

    def _mean(self, kind: str) -> Tensor:
        rows, count = (getattr(self, f"{kind}_{name}") for name in ("rows", "count"))
        check_count(int(count), f"{kind} images")
        mean: Tensor = rows / count
        return mean


def sharpness_rows(images: Tensor) -> Tensor:
    """Returns what is compared of each image, float64 (N, 2 + min(H, W) // 2).

    Columns: `mean_gradient`, `laplacian_variance`, and `radial_power` by ring.

    Args:
        images: uint8 (N, C, H, W), at least 3 x 3.

    Raises:
        ValueError: they are no such images.
    """
    check_images(images)
    if min(images.shape[2:]) < 3:
        raise ValueError(f"wanted images of at least 3 x 3 pixels, got {tuple(images.shape)}")
    x = to_float64(images)
    edges = torch.stack([mean_gradient(x), laplacian_variance(x)], dim=1)
    return torch.cat([edges, radial_power(x)], dim=1)


def compare_sharpness(fake: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Returns the scores of `Sharpness.compute` from the means of two sets of rows, (D,) each."""
    logs = [rows[2:].clamp(min=_LEAST_POWER).log() for rows in (fake, real)]
    return {
        "spectrum_distance": (logs[0] - logs[1]).abs().mean(),
        "gradient_ratio": fake[0] / real[0],
        "laplacian_ratio": fake[1] / real[1],
    }


def radial_power(images: Tensor) -> Tensor:
    """Returns the power of each image by radial frequency, (N, min(H, W) // 2).

    The squared modulus of the orthonormal Fourier transform, averaged over channels and over rings
    of frequencies. Ring r = 1, 2, ... holds those nearest to r / min(H, W) cycles per pixel, up to
    the Nyquist frequency; the mean of the image and the corners beyond belong to none.

    Args:
        images: floating (N, C, H, W), grey levels.
    """
    height, width = images.shape[2:]
    shorter = min(height, width)
    power = torch.fft.fft2(images, norm="ortho").abs().square().mean(1)
    frequencies = [
        torch.fft.fftfreq(n, dtype=torch.float64, device=images.device) for n in (height, width)
    ]
    radius = torch.hypot(frequencies[0][:, None], frequencies[1]) * shorter
    ring = radius.round().long().flatten()
    rings = shorter // 2 + 1
    inside = ring < rings
    sums = power.new_zeros(len(images), rings)
    sums.index_add_(1, ring[inside], power.flatten(1)[:, inside])
    means: Tensor = sums[:, 1:] / ring[inside].bincount(minlength=rings)[1:]
    return means


def mean_gradient(images: Tensor) -> Tensor:
    """Returns the mean modulus of the gradient of each image, grey levels per pixel, (N,).

    Differences of neighbours to the right and below, over all pixels that have both.

    Args:
        images: floating (N, C, H, W), grey levels.
    """
    right = images[..., :-1, 1:] - images[..., :-1, :-1]
    below = images[..., 1:, :-1] - images[..., :-1, :-1]
    return torch.hypot(right, below).flatten(1).mean(1)


def laplacian_variance(images: Tensor) -> Tensor:
    """Returns the variance of the Laplacian of each image, mean over channels, (N,).

    The Laplacian is the sum of the four neighbours less four times the pixel, inside the border.

    Args:
        images: floating (N, C, H, W), grey levels.
    """
    kernel = images.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    flat = images.flatten(0, 1).unsqueeze(1)
    variance: Tensor = F.conv2d(flat, kernel).flatten(1).var(1, correction=0)
    return variance.view(images.shape[:2]).mean(1)
