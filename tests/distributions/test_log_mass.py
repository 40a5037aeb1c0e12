"""Log-masses of bins, against 60 digits, from sharp to flat and far into the tails."""

import itertools
import math

import mpmath
import pytest
import torch

from hvae.distributions.log_mass import logistic_log_mass, normal_log_mass, soft_log_scale

mpmath.mp.dps = 60

LOG_SCALES = [-7.0, -5.5, -3.0, -1.0, 0.0, 2.0, 8.0, 20.0]
CENTRES = [-1e4, -30.0, -1.0, -0.37, 0.0, 0.002, 0.9, 3.0, 1e4]
TAILS = {
    "normal": lambda x: mpmath.erfc(x / mpmath.sqrt(2)) / 2,
    "logistic": lambda x: 1 / (1 + mpmath.exp(x)),
}


def exact(family: str, level: int, centre: float, log_scale: float, bits: int) -> float:
    """ln of the mass, from tails on the side where they are small."""
    tail, last = TAILS[family], 2**bits - 1
    scale = mpmath.exp(mpmath.mpf(log_scale))
    t, d = mpmath.mpf(2 * level - last) / last, mpmath.mpf(1) / last
    above, below = (t + d - mpmath.mpf(centre)) / scale, (t - d - mpmath.mpf(centre)) / scale
    if level == 0:
        return float(mpmath.log(tail(-above)))
    if level == last:
        return float(mpmath.log(tail(below)))
    if below + above < 0:
        above, below = -below, -above
    return float(mpmath.log(tail(below) - tail(above)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("family", TAILS)
def test_log_masses_are_exact_to_rounding(family, bits, dtype):
    log_mass = {"normal": normal_log_mass, "logistic": logistic_log_mass}[family]
    last = 2**bits - 1
    levels = sorted({0, 1, last // 2, last - 1, last})
    cases = list(itertools.product(levels, CENTRES, LOG_SCALES))
    level, centre, log_scale = (torch.tensor(column) for column in zip(*cases, strict=True))
    centre, log_scale = centre.to(dtype), log_scale.to(dtype)
    found = log_mass(level, centre, log_scale, bits).double()
    wanted = torch.tensor(
        [
            exact(family, k, c, s, bits)
            for k, c, s in zip(level.tolist(), centre.tolist(), log_scale.tolist(), strict=True)
        ],
        dtype=torch.float64,
    )
    # Edges and location are rounded, which counts by the slope.
    centre = centre.double().requires_grad_()
    log_masses = log_mass(level, centre, log_scale.double(), bits)
    (slope,) = torch.autograd.grad(log_masses.sum(), centre)
    units = torch.finfo(dtype).eps
    assert ((found - wanted).abs() / (6 * wanted.abs() + 6 + slope.abs())).max() < units


@pytest.mark.parametrize("family", [normal_log_mass, logistic_log_mass])
def test_derivatives_are_those_of_differences_wherever_formulas_meet(family):
    """Distances and widths on both sides of every change of formula."""
    half_bin = 1 / 255
    widths = torch.tensor([0.2, 0.45, 0.499, 0.501, 0.7, 1.2, 4.0], dtype=torch.float64)
    distances = torch.tensor([0.0, 0.01, 0.5, 1.0, 3.0, 12.0], dtype=torch.float64)
    width, distance = torch.meshgrid(widths, distances, indexing="ij")
    log_scale = (half_bin / width).log().flatten().requires_grad_()
    level = torch.full((log_scale.numel(),), 128)
    centre = 1 / 255 + (distance.flatten() * log_scale.detach().exp())
    centre[::2] = 2 / 255 - centre[::2]  # on either side of the level
    # Away from a distance of zero, where the absolute value has no second-sided difference.
    assert torch.autograd.gradcheck(
        lambda c, s: family(level, c, s, 8), (centre.requires_grad_(), log_scale), eps=1e-7
    )


def test_raw_scales_are_kept_within_bounds_and_can_come_back():
    raw = torch.tensor([-1e4, -50.0, -7.0, -3.0, 0.0, 5.0, 1e4], requires_grad=True)
    log_scale = soft_log_scale(raw)
    assert log_scale.min() >= -7
    assert log_scale.max() == 20
    torch.testing.assert_close(log_scale[2].item(), -7 + math.log(2))
    torch.testing.assert_close(log_scale[3:6], raw[3:6], rtol=0, atol=0.02)
    (gradient,) = torch.autograd.grad(log_scale.sum(), raw)
    assert (gradient[2:6] > 0).all()
