"""The prior draw: against the reference, against `gaussian_latent`, and its errors."""

import math

import pytest
import torch

from hvae import ops
from hvae.testing import (
    LAYOUTS,
    TOLERANCES,
    check_against_reference,
    check_derivatives,
    check_op,
    check_registration,
    check_repeatable,
    gaussian_sample_case,
)

RNG = ops.make_rng(12)

CASES = [
    gaussian_sample_case(1, 1, (1, 1)),
    gaussian_sample_case(3, 2, (5, 3), width=3, temperature=0.7),
    gaussian_sample_case(2, 3, (63,), std="log", given_noise=True),
    gaussian_sample_case(2, 5, (9, 7), std="log", width=1),
    gaussian_sample_case(2, 1, (401, 3), given_noise=True, temperature=1.3),
    gaussian_sample_case(2, 3, (3, 2, 5), width=2, floor=0.0),
    gaussian_sample_case(2, 4, (64, 63), width=4),
    gaussian_sample_case(0, 2, (4, 4)),
]
by_label = pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
SMALL = [case for case in CASES if 0 < case.inputs["p"].numel() < 3000]
small_by_label = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.label)


@by_label
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_agrees_with_the_reference(case, dtype):
    check_against_reference(case, dtype=dtype)


@by_label
@pytest.mark.parametrize("layout", LAYOUTS)
def test_agrees_with_the_reference_in_every_layout(case, layout):
    check_against_reference(case, layout=layout)


@small_by_label
def test_derivatives_match_differences(case):
    check_derivatives(case)


def test_registration():
    check_registration(CASES[1], layouts=["channels_last"])


def test_results_repeat_to_the_bit():
    check_repeatable(CASES[6])


@pytest.mark.slow
@small_by_label
def test_passes_every_check(case):
    check_op(case, compiled=True)


@pytest.mark.gpu
@by_label
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_agrees_with_the_reference_on_a_gpu(case, dtype, layout):
    check_against_reference(case, dtype=dtype, layout=layout, device="cuda")


@pytest.mark.parametrize("std", ["softplus", "log"])
def test_is_the_draw_of_a_posterior_equal_to_the_prior(std):
    p = torch.randn(3, 10, 7, 5)
    z = ops.gaussian_latent(p[:, :8].contiguous(), p, rng=RNG, stream=4, std=std).z
    drawn = ops.gaussian_sample(p, 4, rng=RNG, stream=4, std=std)
    torch.testing.assert_close(drawn, z, rtol=1e-6, atol=1e-6)


def test_temperature_scales_the_noise():
    p = torch.randn(3, 8, 7, 5)
    mean = ops.gaussian_sample(p, 4, rng=RNG, temperature=0.0)
    assert torch.equal(mean, p[:, :4])
    half = ops.gaussian_sample(p, 4, rng=RNG, temperature=0.5)
    full = ops.gaussian_sample(p, 4, rng=RNG)
    torch.testing.assert_close(full - mean, 2 * (half - mean), rtol=1e-5, atol=1e-5)


def test_temperature_adds_its_logarithm_to_a_log_std():
    p = torch.randn(3, 8, 7, 5)
    shifted = torch.cat([p[:, :4], p[:, 4:] + math.log(0.6)], dim=1)
    cool = ops.gaussian_sample(p, 4, rng=RNG, std="log", temperature=0.6)
    expected = ops.gaussian_sample(shifted, 4, rng=RNG, std="log")
    torch.testing.assert_close(cool, expected, rtol=1e-5, atol=1e-5)


def test_a_sample_is_independent_of_its_batch():
    p = torch.randn(8, 4, 5, 5)
    whole = ops.gaussian_sample(p, 2, rng=ops.make_rng(1, 100))
    assert torch.equal(whole[3:], ops.gaussian_sample(p[3:], 2, rng=ops.make_rng(1, 103)))


def test_derivatives_that_are_not_offered_are_refused():
    p = torch.randn(2, 4, 3, 3, requires_grad=True)
    z = ops.gaussian_sample(p, 2, rng=RNG)
    (grad,) = torch.autograd.grad(z.square().sum(), p, create_graph=True)
    with pytest.raises(NotImplementedError, match="gaussian_sample is differentiable once"):
        grad.sum().backward()
    eps = torch.randn(2, 2, 3, 3, requires_grad=True)
    with pytest.raises(NotImplementedError, match="computes no gradient for eps"):
        ops.gaussian_sample(p, 2, rng=RNG, eps=eps)
    with ops.reference():
        ops.gaussian_sample(p, 2, rng=RNG, eps=eps).sum().backward()
    assert eps.grad.isfinite().all()


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"p": torch.zeros(2, 4, 3, 3).int()}, TypeError, "p must be float32.*got torch.int32"),
        ({"p": torch.zeros(2, 4)}, ValueError, r"p must be \(B, channels, \*S\)"),
        ({"z_channels": 3}, ValueError, r"z_channels must be in 1..2, half the 4 channels"),
        ({"z_channels": 0}, ValueError, "z_channels must be in 1..2.*got 0"),
        ({"temperature": -1.0}, ValueError, "temperature must be finite and >= 0, got -1.0"),
        ({"temperature": math.inf}, ValueError, "temperature must be finite and >= 0, got inf"),
        ({"eps": torch.zeros(2, 1, 3, 3)}, ValueError, r"eps must have shape \(2, 2, 3, 3\)"),
        ({"std": "normal"}, ValueError, "std must be one of"),
    ],
)
def test_wrong_arguments_are_refused(changed, error, message):
    arguments = {"p": torch.zeros(2, 4, 3, 3), "z_channels": 2, "rng": RNG} | changed
    with pytest.raises(error, match=message):
        ops.gaussian_sample(**arguments)
