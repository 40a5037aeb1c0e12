"""Resizing protocols against Pillow, a naive loop, and values worked out by hand."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics.protocol import PROTOCOLS, resize, to_rgb

# torch computes the filter in float32, Pillow in float64. Seen: 0.0023 at 256 px; an image that is
# all noise reaches 0.007.
GREY_LEVELS = 0.005


def natural(channels: int, height: int, width: int, num_images: int = 1) -> Tensor:
    """Images with the 1/f spectrum of photographs, the full range used and clipped at both ends."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = np.inf
    noise = np.fft.fft2(rng.standard_normal((num_images, channels, height, width)))
    image = np.fft.ifft2(noise / frequency).real
    image = 128 + 70 * image / image.std()
    return torch.from_numpy(image.round().clip(0, 255).astype(np.uint8))


def pillow(image: Tensor, resolution: int, filter: Image.Resampling) -> Tensor:
    """One image (C, H, W) resized by Pillow in floating point, channel by channel."""
    resized = [
        np.asarray(Image.fromarray(c.numpy().astype(np.float32)).resize((resolution,) * 2, filter))
        for c in image
    ]
    return torch.from_numpy(np.stack(resized))


def naive_tf(image: Tensor, resolution: int) -> Tensor:
    """TensorFlow 1's bilinear resizing of (C, H, W), written out pixel by pixel."""
    source = image.numpy().astype(np.float32)
    channels, height, width = source.shape
    result = np.empty((channels, resolution, resolution), np.float32)
    scale_y, scale_x = np.float32(height / resolution), np.float32(width / resolution)
    for row in range(resolution):
        y = np.float32(row) * scale_y
        top, bottom = int(y), min(int(y) + 1, height - 1)
        for column in range(resolution):
            x = np.float32(column) * scale_x
            left, right = int(x), min(int(x) + 1, width - 1)
            above = source[:, top, left] + (source[:, top, right] - source[:, top, left]) * (
                x - np.float32(left)
            )
            below = source[:, bottom, left] + (
                source[:, bottom, right] - source[:, bottom, left]
            ) * (x - np.float32(left))
            result[:, row, column] = above + (below - above) * (y - np.float32(top))
    return torch.from_numpy(result)


@pytest.mark.parametrize("size", [64, 128, 256, 299, 512, 1024])
def test_clean_is_pillows_bicubic_without_rounding(size: int) -> None:
    images = natural(3, size, size)
    expected = pillow(images[0], 299, Image.Resampling.BICUBIC).clamp(0, 255)
    assert (resize(images, 299, "clean")[0] - expected).abs().max() < GREY_LEVELS


def test_clean_reads_both_sides_of_an_image_that_is_not_square() -> None:
    images = natural(3, 40, 150)
    expected = pillow(images[0], 64, Image.Resampling.BICUBIC).clamp(0, 255)
    assert (resize(images, 64, "clean")[0] - expected).abs().max() < GREY_LEVELS


def test_clean_is_clamped_and_not_rounded() -> None:
    step = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    step[..., 4:] = 255
    result = resize(step, 32, "clean")
    assert (result.min(), result.max()) == (0, 255)
    assert not torch.equal(result, result.round())


@pytest.mark.parametrize(("height", "width"), [(16, 16), (64, 48), (75, 130)])
def test_legacy_tf_is_the_naive_loop(height: int, width: int) -> None:
    images = natural(3, height, width)
    found = resize(images, 61, "legacy-tf")[0]
    assert (found - naive_tf(images[0], 61)).abs().max() < 1e-3


def test_legacy_tf_has_no_half_pixel_centres() -> None:
    ramp = torch.tensor([0, 100], dtype=torch.uint8).expand(1, 1, 2, 2)
    assert resize(ramp, 4, "legacy-tf")[0, 0, 0].tolist() == [0, 50, 100, 100]


def test_legacy_pytorch_has_half_pixel_centres_and_no_antialias() -> None:
    ramp = torch.tensor([0, 100], dtype=torch.uint8).expand(1, 1, 2, 2)
    assert resize(ramp, 4, "legacy-pytorch")[0, 0, 0].tolist() == [0, 25, 75, 100]
    spikes = torch.tensor([0, 0, 0, 240, 0, 0, 0, 240], dtype=torch.uint8).expand(1, 1, 8, 8)
    assert resize(spikes, 2, "legacy-pytorch")[0, 0, 0].tolist() == [0, 0]
    assert resize(spikes, 2, "clean")[0, 0, 0].min() > 30  # antialias sees them


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_at_its_own_resolution_an_image_is_unchanged(protocol: str) -> None:
    images = natural(3, 33, 33)
    assert torch.equal(resize(images, 33, protocol), images.float())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("size", [1, 7, 40, 300])
def test_an_image_does_not_depend_on_its_batch(protocol: str, size: int) -> None:
    images = (
        natural(3, size, size, num_images=5) if size > 1 else torch.full((5, 3, 1, 1), 9).byte()
    )
    together = resize(images, 64, protocol)
    alone = torch.cat([resize(image[None], 64, protocol) for image in images])
    assert torch.equal(together, alone)
    assert together.shape == (5, 3, 64, 64)
    assert together.dtype == torch.float32


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_memory_layout_does_not_matter(protocol: str) -> None:
    images = natural(3, 50, 41, num_images=2)
    strided = torch.stack([images, images], -1)[..., 0]
    for same in (images.contiguous(memory_format=torch.channels_last), strided):
        assert torch.equal(resize(same, 64, protocol), resize(images, 64, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_grey_is_the_same_in_three_channels(protocol: str) -> None:
    grey = natural(1, 20, 20)
    result = resize(grey, 64, protocol)
    assert torch.equal(result, resize(grey.repeat(1, 3, 1, 1), 64, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_images_are_no_error(protocol: str) -> None:
    empty = torch.empty(0, 3, 8, 8, dtype=torch.uint8)
    assert resize(empty, 64, protocol).shape == (0, 3, 64, 64)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8), (1, 2, 8, 8), (1, 3, 0, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images must be \(N, 1 or 3, H, W\)"):
        to_rgb(torch.zeros(shape, dtype=torch.uint8))


def test_floats_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images must be uint8 in 0\.\.255, got torch\.float32"):
        to_rgb(torch.zeros(1, 3, 8, 8))


def test_an_unknown_protocol_is_named() -> None:
    expected = "protocol: wanted one of clean, legacy-pytorch, legacy-tf, got 'antialias'"
    with pytest.raises(UserError, match=expected):
        resize(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 64, "antialias")
