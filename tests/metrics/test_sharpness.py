"""Sharpness is 1 for equal sets, and moves as images are blurred or made noisy."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics import Sharpness
from hvae.metrics.sharpness import laplacian_variance, mean_gradient, radial_power


def images(count: int, seed: int = 0, size: tuple[int, int] = (16, 16)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator) * 255
    return F.interpolate(coarse, size, mode="bilinear").round().to(torch.uint8)


def blurred(x: Tensor) -> Tensor:
    kernel = torch.full((3, 1, 3, 3), 1 / 9)
    padded = F.pad(x.float(), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, kernel, groups=3).round().to(torch.uint8)


def compare(fake: Tensor, real: Tensor) -> dict[str, float]:
    metric = Sharpness(tuple(fake.shape[2:]))
    metric.update(fake, real=False)
    metric.update(real, real=True)
    return {name: value.item() for name, value in metric.compute().items()}


def test_equal_sets_are_equally_sharp() -> None:
    same = compare(images(8), images(8).flip(0))
    assert same["spectrum_distance"] == pytest.approx(0, abs=1e-9)
    assert same["gradient_ratio"] == pytest.approx(1)
    assert same["laplacian_ratio"] == pytest.approx(1)


def test_blur_and_noise_move_all_three() -> None:
    real = images(32)
    fresh = compare(images(32, seed=1), real)
    blur = compare(blurred(images(32, seed=1)), real)
    noise = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 20
    rough = compare((images(32, seed=1) + noise).clamp(0, 255).to(torch.uint8), real)
    assert blur["gradient_ratio"] < 0.9 < fresh["gradient_ratio"] < 1.1 < rough["gradient_ratio"]
    assert blur["laplacian_ratio"] < 0.8 < fresh["laplacian_ratio"] < 1.2 < rough["laplacian_ratio"]
    assert fresh["spectrum_distance"] < 0.2 < blur["spectrum_distance"]
    assert fresh["spectrum_distance"] < 0.2 < rough["spectrum_distance"]


def test_the_distance_is_the_mean_log_ratio_of_spectra() -> None:
    fake, real = images(5), images(7, seed=1)
    powers = [radial_power(x.double()).mean(0) for x in (fake, real)]
    expected = (powers[0] / powers[1]).log().abs().mean().item()
    assert compare(fake, real)["spectrum_distance"] == pytest.approx(expected)


@pytest.mark.parametrize("size", [(16, 16), (12, 20), (9, 9)])
def test_a_wave_has_its_power_in_its_ring(size: tuple[int, int]) -> None:
    height, width = size
    shorter = min(size)
    across = torch.arange(shorter, dtype=torch.float64)
    for cycles in range(1, shorter // 2):
        wave = torch.cos(2 * math.pi * cycles * across / shorter)
        whole = wave[:, None].expand(size) if height <= width else wave.expand(size)
        power = radial_power(whole[None, None])[0]
        assert len(power) == shorter // 2
        assert power.argmax() == cycles - 1
        assert power[cycles - 1] > 1e6 * power.sum().sub(power[cycles - 1]).clamp(min=1e-20)


def test_white_noise_has_its_variance_at_every_frequency() -> None:
    noise = torch.randn(400, 2, 12, 17, generator=torch.Generator().manual_seed(0)).double()
    power = radial_power(5 + 3 * noise).mean(0)
    torch.testing.assert_close(power, torch.full((6,), 9.0).double(), rtol=0.05, atol=0)


def test_a_ramp_has_its_slope_and_no_laplacian() -> None:
    y, x = torch.meshgrid(torch.arange(7.0), torch.arange(9.0), indexing="ij")
    ramp = (3 * x + 4 * y).double()[None, None]
    assert mean_gradient(ramp).tolist() == pytest.approx([5.0])
    assert laplacian_variance(ramp).tolist() == pytest.approx([0.0], abs=1e-20)


def test_a_point_has_the_laplacian_of_its_neighbours() -> None:
    point = torch.zeros(1, 2, 7, 7, dtype=torch.float64)
    point[0, 0, 3, 3] = 1
    # 25 values: -4 once, 1 four times, mean 0; the other channel has none.
    assert laplacian_variance(point).tolist() == pytest.approx([(16 + 4) / 25 / 2])


def test_batches_do_not_matter() -> None:
    fake, real = images(12), images(9, seed=1)
    metric = Sharpness((16, 16))
    for batch in fake.split(5):
        metric.update(batch, real=False)
    for batch in real.split(2):
        metric.update(batch, real=True)
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found == pytest.approx(compare(fake, real), rel=1e-12)


def test_blank_images_have_a_finite_spectrum() -> None:
    blank = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    found = compare(blank, images(4))
    assert 1 < found["spectrum_distance"] < 50
    assert found["gradient_ratio"] == found["laplacian_ratio"] == 0


def test_what_cannot_be_compared_is_refused() -> None:
    metric = Sharpness((16, 16))
    with pytest.raises(ValueError, match=r"wanted images of \(16, 16\), got \(12, 16\)"):
        metric.update(images(2, size=(12, 16)), real=True)
    with pytest.raises(ValueError, match="wanted uint8 images"):
        metric.update(images(2).float(), real=True)
    with pytest.raises(ValueError, match="at least 3 x 3 pixels, got 2 x 8"):
        Sharpness((2, 8))
    metric.update(images(2), real=True)
    metric.update(images(1), real=False)
    with pytest.raises(UserError, match="wanted at least 2 fake images, got 1"):
        metric.compute()
