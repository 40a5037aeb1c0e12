"""The discretised logistic mixture: normalisation, edges, gradients, draws and the mean."""

import math
import re
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from hvae import ops
from hvae.ops.logistic_mixture import LOG_SCALE_FLOOR
from hvae.testing import (
    LAYOUTS,
    TOLERANCES,
    check_against_reference,
    check_compiled,
    check_derivatives,
    check_op,
    check_registration,
    check_repeatable,
    logistic_mixture_nll_case,
    logistic_mixture_sample_case,
    mixture_params,
)

MIXTURES = 3


def random_params(
    colours: int,
    *space: int,
    batch: int = 2,
    mixtures: int = MIXTURES,
    log_scale: float = -2.0,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Head outputs for so many colours, by the global generator."""
    return mixture_params(batch, colours, space, mixtures, log_scale=log_scale).to(dtype)


def _raw_log_scales(params: Tensor, colours: int, mixtures: int) -> Tensor:
    """A view (N, n, M, *S) of the raw log-scales."""
    slots = 3 if colours == 3 else 2
    return params[:, mixtures:].unflatten(1, (colours, slots, mixtures))[:, :, 1]


CASES = [
    logistic_mixture_nll_case(2, 1, (7,)),
    logistic_mixture_nll_case(2, 1, (3, 5), bits=5, reduce="pixel"),
    logistic_mixture_nll_case(2, 3, (4, 3), mixtures=2),
    logistic_mixture_nll_case(1, 3, (2, 3, 2), mixtures=1, reduce="pixel"),
    logistic_mixture_nll_case(2, 3, (5,), bits=1),
    # More pixels than a tile of the kernels holds.
    logistic_mixture_nll_case(2, 1, (131,), mixtures=10, bits=16),
    logistic_mixture_nll_case(2, 3, (9, 8), mixtures=10),
    logistic_mixture_nll_case(3, 3, (1, 1)),
]


each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)


@pytest.fixture(params=["as on a CPU", "as on a GPU"])
def gradient_in(request, monkeypatch):
    """Both ways to the gradient: computed in the forward pass, or in the backward."""
    if request.param == "as on a GPU":
        monkeypatch.setattr("hvae.ops.logistic_mixture._gradient_in_forward", lambda params: False)


@each_case
@pytest.mark.usefixtures("gradient_in")
def test_values_and_gradients_are_those_of_the_reference_in_double_precision(case):
    for dtype in TOLERANCES:
        check_against_reference(case, dtype=dtype)
    for layout in LAYOUTS:
        check_against_reference(case, layout=layout)


@each_case
@pytest.mark.usefixtures("gradient_in")
def test_gradients_are_those_of_differences(case):
    check_derivatives(case)


@pytest.mark.usefixtures("gradient_in")
def test_torch_accepts_the_registration():
    check_registration(CASES[0], layouts=["contiguous"])


@pytest.mark.slow
@each_case
def test_torch_accepts_the_registration_of_every_layout(case):
    check_registration(case)


@each_case
def test_results_are_repeatable_to_the_bit(case):
    # Torch's softmax, and with it the reference, rounds differently on other numbers of threads.
    fused = torch._C._dispatch_has_kernel_for_dispatch_key("hvae::logistic_mixture_nll", "CPU")
    check_repeatable(case, threads=(1, 2, 3) if fused else ())


@pytest.mark.gpu
@each_case
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_agrees_with_the_reference_on_a_gpu(case, dtype, layout):
    check_against_reference(case, dtype=dtype, layout=layout, device="cuda")


# Relative errors of the gradient as one vector, and of each kind of parameter alone.
@pytest.mark.parametrize("bits", [2, 8, 16])
@pytest.mark.parametrize(
    ("log_scale", "whole", "each"),
    [
        (-7.0, 5e-5, 5e-5),
        (-5.0, 1e-5, 5e-5),
        (-2.0, 1e-5, 5e-5),
        (0.0, 1e-5, 5e-5),
        (2.0, 5e-5, 5e-5),
    ],
)
def test_single_precision_gradients_follow_double_ones(bits, log_scale, whole, each):
    params = random_params(3, 12, 12, mixtures=10)
    _raw_log_scales(params, 3, 10).fill_(log_scale)
    x = torch.randint(2**bits, (2, 3, 12, 12))
    x[0, :, :3], x[1, :, :3] = 0, 2**bits - 1
    kinds = [
        torch.autograd.grad(ops.logistic_mixture_nll(p, x, bits=bits).sum(), p)[0].double()
        for p in (params.float().requires_grad_(), params.requires_grad_())
    ]
    single, double = (
        [grad[:, :10], *grad[:, 10:].unflatten(1, (3, 3, 10)).unbind(2)] for grad in kinds
    )
    assert _relative(kinds[0], kinds[1]) < whole
    for ours, exact in zip(single, double, strict=True):
        assert _relative(ours, exact) < each


def _relative(value: Tensor, wanted: Tensor) -> float:
    return ((value - wanted).norm() / wanted.norm()).item()


@pytest.mark.slow
@each_case
def test_the_op_compiles(case):
    check_compiled(case)


@pytest.mark.parametrize("bits", [*range(1, 9), 10, 16])
@pytest.mark.parametrize("log_scale", [-9.0, -4.0, -1.0, 3.0])
def test_masses_of_grey_levels_sum_to_one(bits, log_scale):
    levels = 2**bits
    params = random_params(1, 1, batch=3, log_scale=log_scale).expand(-1, -1, levels)
    x = torch.arange(levels).expand(3, 1, levels)
    for dtype, tolerance in ((torch.float64, 1e-9 if bits == 16 else 1e-12), (torch.float32, 1e-5)):
        nll = ops.logistic_mixture_nll(params.to(dtype), x, bits=bits, reduce="pixel")
        total = (-nll.double()).exp().sum(1)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("bits", "log_scale"), [(1, -1.0), (3, -7.0), (4, -2.0), (4, 1.0)])
def test_masses_of_colours_sum_to_one(bits, log_scale):
    levels = 2**bits
    x = torch.cartesian_prod(*[torch.arange(levels)] * 3).T.unsqueeze(0)
    params = random_params(3, 1, batch=1, log_scale=log_scale).expand(-1, -1, levels**3)
    mass = (-ops.logistic_mixture_nll(params, x, bits=bits, reduce="pixel")).exp()
    assert mass.sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("level", [0, 1, 100, 254, 255])
def test_a_single_component_has_the_mass_of_its_bin(level):
    mean, scale = 0.3, 0.2
    params = torch.tensor([0.0, mean, math.log(scale)], dtype=torch.float64).view(1, 3, 1)
    nll = ops.logistic_mixture_nll(params, torch.full((1, 1, 1), level)).item()
    lower = -math.inf if level == 0 else (2 * level - 256) / 255
    upper = math.inf if level == 255 else (2 * level - 254) / 255
    distribution = stats.logistic(mean, scale)
    mass = distribution.cdf(upper) - distribution.cdf(lower)
    assert nll == pytest.approx(-math.log(mass), rel=1e-10)


def test_colours_shift_the_means_of_later_ones():
    raw = torch.tensor([0.4, -0.7, 1.1], dtype=torch.float64)
    means = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    log_scales = torch.tensor([-1.0, -2.0, -1.5], dtype=torch.float64)
    x = torch.tensor([200, 30, 120])
    target, k = (2 * x.double() - 255) / 255, raw.tanh()
    shifted = means + torch.stack([0 * k[0], k[0] * target[0], k[1] * target[0] + k[2] * target[1]])
    colours = torch.stack([means, log_scales, raw], 1).flatten()
    coupled = torch.cat([torch.zeros(1, dtype=torch.float64), colours]).view(1, 10, 1)
    grey = torch.stack([torch.zeros(3, dtype=torch.float64), shifted, log_scales], 1).unsqueeze(2)
    nll = ops.logistic_mixture_nll(coupled, x.view(1, 3, 1))
    torch.testing.assert_close(nll, ops.logistic_mixture_nll(grey, x.view(3, 1, 1)).sum(0, True))


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("raw", [-60.0, -8.0, 20.0, 60.0])
def test_extreme_scales_and_means_stay_finite(colours, raw):
    params = random_params(colours, 4, dtype=torch.float32)
    _raw_log_scales(params, colours, MIXTURES).fill_(raw)
    params[:, MIXTURES : 2 * MIXTURES, 1] = 1e4
    x = torch.tensor([0, 1, 254, 255]).expand(2, colours, 4)
    params.requires_grad_()
    nll = ops.logistic_mixture_nll(params, x)
    (gradient,) = torch.autograd.grad(nll.sum(), params)
    assert nll.isfinite().all()
    assert gradient.isfinite().all()


def test_scales_under_the_floor_have_no_gradient_and_no_effect():
    params = random_params(3, 5)
    log_scales = _raw_log_scales(params, 3, MIXTURES)
    log_scales[:] = LOG_SCALE_FLOOR - 1
    x = torch.randint(256, (2, 3, 5))
    nll = ops.logistic_mixture_nll(params.requires_grad_(), x)
    (gradient,) = torch.autograd.grad(nll.sum(), params)
    assert not _raw_log_scales(gradient, 3, MIXTURES).any()
    with torch.no_grad():
        log_scales -= 10
    assert torch.equal(ops.logistic_mixture_nll(params, x), nll)


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("log_scale", [-6.0, -2.0, 3.0])
def test_the_closed_form_gradient_is_that_of_autograd(colours, log_scale):
    params = random_params(colours, 3, 4, log_scale=log_scale).requires_grad_()
    x = torch.randint(256, (2, colours, 3, 4))
    x[..., 0], x[..., -1] = 0, 255
    cotangent = torch.randn(2, dtype=torch.float64)

    def gradient() -> Tensor:
        nll = ops.logistic_mixture_nll(params, x)
        return torch.autograd.grad(nll, params, cotangent)[0]

    closed_form = gradient()
    with ops.reference():
        torch.testing.assert_close(closed_form, gradient(), rtol=1e-10, atol=1e-12)


def test_pixels_add_up_to_the_sample():
    case = logistic_mixture_nll_case(2, 3, (4, 5))
    params, x = case.inputs["params"].double(), case.inputs["x"]
    pixels = ops.logistic_mixture_nll(params, x, reduce="pixel")
    assert pixels.shape == (2, 4, 5)
    torch.testing.assert_close(pixels.sum((1, 2)), ops.logistic_mixture_nll(params, x))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_levels_may_be_of_any_integer_dtype(dtype):
    case = logistic_mixture_nll_case(2, 3, (4,))
    params, x = case.inputs["params"], case.inputs["x"]
    expected = ops.logistic_mixture_nll(params, x)
    assert torch.equal(ops.logistic_mixture_nll(params, x.to(dtype)), expected)


def test_an_empty_batch_has_no_nll():
    params = torch.empty(0, 30, 2, 2, requires_grad=True)
    nll = ops.logistic_mixture_nll(params, torch.empty(0, 3, 2, 2, dtype=torch.uint8))
    assert nll.shape == (0,)
    nll.sum().backward()
    assert params.grad.shape == params.shape


@pytest.mark.usefixtures("gradient_in")
def test_a_second_derivative_is_refused():
    case = logistic_mixture_nll_case(2, 1, (3,))
    params = case.inputs["params"].requires_grad_()
    nll = ops.logistic_mixture_nll(params, case.inputs["x"]).sum()
    (gradient,) = torch.autograd.grad(nll, params, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiable once"):
        gradient.sum().backward()


SAMPLE_CASES = [
    logistic_mixture_sample_case(1, 1, (1,)),
    logistic_mixture_sample_case(2, 1, (65,), bits=1, temperature=0.7),
    logistic_mixture_sample_case(3, 3, (5, 7), mixtures=1, temperature=0.0),
    logistic_mixture_sample_case(2, 3, (3, 9, 5), mixtures=7, bits=5),
    logistic_mixture_sample_case(2, 3, (23, 25), mixtures=10),
    logistic_mixture_sample_case(2, 1, (40, 32), mixtures=10, bits=16, temperature=1.2),
    logistic_mixture_sample_case(0, 3, (2, 2)),
]
each_sample_case = pytest.mark.parametrize("case", SAMPLE_CASES, ids=lambda case: case.label)


@each_sample_case
def test_draws_pass_the_checks_of_every_op(case):
    check_op(case)


@pytest.mark.slow
@each_sample_case
def test_the_draw_compiles(case):
    check_compiled(case)


@pytest.mark.gpu
@each_sample_case
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_draws_agree_with_the_reference_on_a_gpu(case, dtype, layout):
    check_against_reference(case, dtype=dtype, layout=layout, device="cuda")


def test_parameters_that_are_no_numbers_draw_level_zero():
    params = torch.full((1, 30, 4), float("nan"))
    for path in (nullcontext, ops.reference):
        with path():
            levels = ops.logistic_mixture_sample(params, 3, rng=ops.make_rng(0), stream=0)
        assert not levels.any()


def test_draws_carry_no_gradient():
    params = random_params(1, 3).requires_grad_()
    levels = ops.logistic_mixture_sample(params, 1, rng=ops.make_rng(0), stream=0)
    assert levels.dtype == torch.int32
    assert not levels.requires_grad


@pytest.mark.parametrize(
    ("params", "colours", "options", "message"),
    [
        ((2, 6, 4), 2, {}, "colours: wanted 1 or 3, got 2"),
        ((2, 7, 4), 1, {}, "params: wanted (N, 3 x mixtures, *S) for 1 colours, got (2, 7, 4)"),
        ((2, 6, 4), 1, {"bits": 0}, "bits: wanted 1 to 16, got 0"),
        ((2, 6, 4), 1, {"stream": -1}, "stream must be in [0, 2**32), got -1"),
    ],
)
def test_errors_of_draws_say_what_was_wanted(params, colours, options, message):
    arguments = {"rng": ops.make_rng(0), "stream": 0, **options}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ops.logistic_mixture_sample(torch.zeros(params), colours, **arguments)


def draws(params: Tensor, colours: int, count: int, **options) -> Tensor:
    """Levels (count, n) of independent draws from the mixture of one pixel, params (P,)."""
    params = params.view(1, -1, 1).expand(1, -1, count)
    levels = ops.logistic_mixture_sample(params, colours, rng=ops.make_rng(7), stream=2, **options)
    return levels[0].T.long()


@pytest.mark.parametrize(("bits", "log_scale"), [(8, -3.0), (5, -2.0), (3, 0.5), (1, -1.0)])
def test_draws_have_the_density_of_grey_levels(bits, log_scale):
    levels, count = 2**bits, 200_000
    params = random_params(1, 1, batch=1, log_scale=log_scale)
    x = torch.arange(levels).expand(1, 1, levels)
    nll = ops.logistic_mixture_nll(params.expand(1, -1, levels), x, bits=bits, reduce="pixel")
    found = torch.bincount(draws(params, 1, count, bits=bits)[:, 0], minlength=levels)
    assert chi_squared_p(found.numpy(), (-nll[0]).exp().numpy() * count) > 1e-3


@pytest.mark.parametrize("log_scale", [-3.0, -1.0])
def test_draws_have_the_joint_density_of_colours(log_scale):
    bits, count = 3, 400_000
    x = torch.cartesian_prod(*[torch.arange(2**bits)] * 3).T.unsqueeze(0)
    params = random_params(3, 1, batch=1, log_scale=log_scale)
    nll = ops.logistic_mixture_nll(params.expand(1, -1, x.shape[2]), x, bits=bits, reduce="pixel")
    red, green, blue = draws(params, 3, count, bits=bits).T
    found = torch.bincount((red << 2 * bits) + (green << bits) + blue, minlength=x.shape[2])
    assert chi_squared_p(found.numpy(), (-nll[0]).exp().numpy() * count) > 1e-3


def chi_squared_p(found: np.ndarray, expected: np.ndarray) -> float:
    """The p-value of counts; classes that expect fewer than 10 are taken together."""
    rare = expected < 10
    pooled = [np.append(counts[~rare], counts[rare].sum()) for counts in (found, expected)]
    found, expected = (counts[pooled[1] > 0] for counts in pooled)
    return stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue


def test_a_draw_depends_on_its_index_alone():
    params = random_params(3, 4, 5, batch=6)
    whole = ops.logistic_mixture_sample(params, 3, rng=ops.make_rng(1, 10), stream=0)
    part = ops.logistic_mixture_sample(params[2:4], 3, rng=ops.make_rng(1, 12), stream=0)
    assert torch.equal(whole[2:4], part)
    other = ops.logistic_mixture_sample(params, 3, rng=ops.make_rng(1, 10), stream=1)
    assert not torch.equal(whole, other)


def test_temperature_zero_gives_a_component_mean():
    params = random_params(3, 6, mixtures=1)
    levels = ops.logistic_mixture_sample(params, 3, rng=ops.make_rng(0), stream=0, temperature=0.0)
    red = ((params[:, 1] + 1) / 2 * 255).round().clamp(0, 255).long()
    assert torch.equal(levels[:, 0], red)


def test_the_mean_chains_colours_within_each_component():
    logits = torch.tensor([0.3, -0.5], dtype=torch.float64)
    means, raw = 0.2 * torch.randn(2, 3, 2, dtype=torch.float64)
    colours = torch.stack([means, torch.zeros_like(means), raw], 1)
    params = torch.cat([logits, colours.flatten()]).view(1, 20, 1)
    k, weights = raw.tanh(), logits.softmax(0)
    red = means[0]
    green = means[1] + k[0] * red
    blue = means[2] + k[1] * red + k[2] * green
    expected = torch.stack([(weights * c).sum() for c in (red, green, blue)]).view(1, 3, 1)
    torch.testing.assert_close(ops.logistic_mixture_mean(params, 3), expected)


@pytest.mark.parametrize("colours", [1, 3])
def test_the_mean_is_that_of_draws_away_from_the_edges(colours):
    params = 0.3 * random_params(colours, 1, batch=1, log_scale=-4.0)
    _raw_log_scales(params, colours, MIXTURES).sub_(3)
    count = 100_000
    values = (2 * draws(params[0, :, 0], colours, count).double() - 255) / 255
    mean = ops.logistic_mixture_mean(params, colours)[0, :, 0]
    error = (values.mean(0) - mean) / (values.std(0) / math.sqrt(count))
    assert error.abs().max() < 4


def test_the_mean_is_differentiable_and_within_range():
    params = random_params(3, 4, log_scale=0.0).mul_(0.1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p: ops.logistic_mixture_mean(p, 3), (params,), fast_mode=True
    )
    assert ops.logistic_mixture_mean(100 * params, 3).abs().max() <= 1


@pytest.mark.parametrize(
    ("params", "x", "options", "message"),
    [
        ((2, 6, 4), (2, 2, 4), {}, "x: wanted (N, 1 or 3, *S), got (2, 2, 4)"),
        ((2, 6), (2, 1), {}, "x: wanted (N, 1 or 3, *S), got (2, 1)"),
        (
            (2, 7, 4),
            (2, 1, 4),
            {},
            "params: wanted (N, 3 x mixtures, *S) for 1 colours, got (2, 7, 4)",
        ),
        (
            (2, 12, 4),
            (2, 3, 4),
            {},
            "params: wanted (N, 10 x mixtures, *S) for 3 colours, got (2, 12, 4)",
        ),
        ((2, 6, 4), (3, 1, 4), {}, "params (2, 6, 4) and x (3, 1, 4) differ in N or *S"),
        ((2, 6, 4), (2, 1, 5), {}, "params (2, 6, 4) and x (2, 1, 5) differ in N or *S"),
        (
            (2, 6, 4),
            (2, 1, 4),
            {"bits": 17},
            "bits: wanted 1 to 16, got 17",
        ),
        (
            (2, 6, 4),
            (2, 1, 4),
            {"reduce": "mean"},
            'reduce: wanted "sample" or "pixel", got \'mean\'',
        ),
    ],
)
def test_errors_say_what_was_wanted(params, x, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ops.logistic_mixture_nll(torch.zeros(params), torch.zeros(x, dtype=torch.int64), **options)


def test_levels_must_be_integers():
    with pytest.raises(ValueError, match=r"wanted integer levels, got torch\.float32"):
        ops.logistic_mixture_nll(torch.zeros(1, 3, 2), torch.zeros(1, 1, 2))
