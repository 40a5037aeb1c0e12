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
            self.add_sum(f"{kind}_power", min(size) // 2)
            self.add_sum(f"{kind}_gradient")
            self.add_sum(f"{kind}_laplacian")

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
        x = to_float64(images).to(self.state_device)
        for name, value in (
            ("power", radial_power(x)),
            ("gradient", mean_gradient(x)),
            ("laplacian", laplacian_variance(x)),
        ):
            self._sum(real, name).add_(value.sum(0))
        self._sum(real, "count").add_(len(x))

    def compute(self) -> dict[str, Tensor]:
        """Returns float64 scalars.

        * `spectrum_distance`: mean over frequencies of |log P_fake - log P_real|, nats;
        * `gradient_ratio`: mean |grad x| of the fakes by that of the reals;
        * `laplacian_ratio`: the same of the variance of the Laplacian.

        A ratio is infinite or not a number where the reals are blank.

        Raises:
            UserError: there are less than two images of a kind.
        """
        for real, what in ((False, "fake images"), (True, "real images")):
            check_count(int(self._sum(real, "count")), what)
        fake, real_power = (self._mean(real, "power") for real in (False, True))
        logs = [power.clamp(min=_LEAST_POWER).log() for power in (fake, real_power)]
        return {
            "spectrum_distance": (logs[0] - logs[1]).abs().mean(),
            "gradient_ratio": self._mean(False, "gradient") / self._mean(True, "gradient"),
            "laplacian_ratio": self._mean(False, "laplacian") / self._mean(True, "laplacian"),
        }

    def _sum(self, real: bool, name: str) -> Tensor:
        total: Tensor = getattr(self, f"{'real' if real else 'fake'}_{name}")
        return total

    def _mean(self, real: bool, name: str) -> Tensor:
        mean: Tensor = self._sum(real, name) / self._sum(real, "count")
        return mean


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
