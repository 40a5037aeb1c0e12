"""PSNR and SSIM of pairs are their definitions, image by image."""

import math

import pytest
import scipy.ndimage
import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics import psnr, ssim


def images(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


def test_psnr_is_that_of_each_image() -> None:
    black = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    other = black.clone()
    other[0] = 255
    other[1] = 51
    other[2, 0, 0, 0] = 10
    found = psnr(black, other)
    assert found.dtype == torch.float64
    expected = [0.0, 20 * math.log10(5), 10 * math.log10(255**2 / 25)]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert torch.equal(psnr(other, black), found)


def test_equal_images_are_as_good_as_the_best_that_differ() -> None:
    a = images(2, 3, 4, 5)
    b = a.clone()
    b[1, 2, 3, 4] ^= 1
    best = 10 * math.log10(255**2 * 3 * 4 * 5)
    assert psnr(a, b).tolist() == pytest.approx([best, best])


def naive_ssim(a: Tensor, b: Tensor) -> float:
    """Of one channel: windows inside the image, by scipy's Gaussian filter of the same radius."""
    x, y = a.double().numpy(), b.double().numpy()

    def blur(z):
        return scipy.ndimage.gaussian_filter(z, 1.5, radius=5)[5:-5, 5:-5]

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    both = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float((luminance * (2 * both + c2) / (var_x + var_y + c2)).mean())


@pytest.mark.parametrize("size", [(11, 11), (16, 23)])
def test_ssim_is_its_definition(size: tuple[int, int]) -> None:
    a = images(2, 3, *size)
    noise = images(2, 3, *size, seed=1) // 8
    b = a // 2 + noise
    found = ssim(a, b)
    assert found.dtype == torch.float64
    for image in range(2):
        channels = [naive_ssim(a[image, c], b[image, c]) for c in range(3)]
        assert found[image].item() == pytest.approx(sum(channels) / 3, rel=1e-9)
    assert ssim(a, a).tolist() == pytest.approx([1.0, 1.0], abs=1e-12)


def test_images_smaller_than_the_window_are_refused() -> None:
    with pytest.raises(UserError, match="window of 11 x 11 pixels, got images of 10 x 64"):
        ssim(images(1, 3, 10, 64), images(1, 3, 10, 64))


@pytest.mark.parametrize("score", [psnr, ssim])
def test_other_things_than_pairs_of_images_are_refused(score) -> None:
    a = images(2, 3, 16, 16)
    with pytest.raises(ValueError, match="wanted uint8 images"):
        score(a, a.float())
    with pytest.raises(ValueError, match="wanted uint8 images"):
        score(a[0], a[0])
    with pytest.raises(ValueError, match=r"wanted images of one shape, got \(2, 3, 16, 16\) and"):
        score(a, a[:1])
