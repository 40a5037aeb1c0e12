"""The posterior draw with its KL: against the reference and the mathematics, and its errors."""

import itertools
import math
from contextlib import nullcontext

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from hvae import ops
from hvae.testing import (
    LAYOUTS,
    TOLERANCES,
    OpCase,
    check_against_reference,
    check_compiled,
    check_derivatives,
    check_op,
    check_registration,
    check_repeatable,
    gaussian_latent_case,
)

RNG = ops.make_rng(11)
HALF = (torch.bfloat16, torch.float16)

# Sizes at which tiles break: 1, odd, one short of a power of two, prime, one pixel, no sample.
CASES = [
    gaussian_latent_case(1, 1, (1, 1)),
    gaussian_latent_case(3, 1, (1, 1), std="log", width=1, residual=True),
    gaussian_latent_case(2, 16, (1, 1), reduce="channel", width=16, residual=True),
    gaussian_latent_case(2, 3, (5, 3), width=4, residual=True),
    gaussian_latent_case(2, 3, (5, 3), width=4, std="log", reduce="none"),
    gaussian_latent_case(3, 7, (9, 7), reduce="channel", given_noise=True),
    gaussian_latent_case(2, 6, (7, 9), std="log", reduce="channel_group", groups=3),
    gaussian_latent_case(1, 5, (63,), width=2, residual=True, floor=0.0),
    gaussian_latent_case(2, 3, (401,), std="log", reduce="channel"),
    gaussian_latent_case(2, 2, (401, 3), reduce="none", width=3, residual=True),
    gaussian_latent_case(2, 3, (3, 5, 2), width=5, residual=True, given_noise=True),
    gaussian_latent_case(1, 8, (4, 3, 3), std="log", reduce="channel_group", groups=2),
    gaussian_latent_case(2, 4, (64, 63), width=8, residual=True),
    gaussian_latent_case(0, 3, (4, 4), width=2, residual=True),
    gaussian_latent_case(0, 2, (5,), reduce="none"),
]
by_label = pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
SMALL = [case for case in CASES if 0 < case.inputs["q"].numel() < 3000]
small_by_label = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.label)


def latent(q, p, **options):
    return ops.gaussian_latent(q, p, rng=RNG, **options)


def buffers(batch=2, z_channels=3, space=(4, 5), width=0, dtype=torch.float32):
    return (
        torch.randn(batch, 2 * z_channels, *space, dtype=dtype),
        torch.randn(batch, 2 * z_channels + width, *space, dtype=dtype),
    )


@by_label
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_agrees_with_the_reference(case, dtype):
    check_against_reference(case, dtype=dtype)


@by_label
@pytest.mark.parametrize("layout", LAYOUTS)
def test_agrees_with_the_reference_in_every_layout(case, layout):
    check_against_reference(case, layout=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_agrees_with_the_reference_in_half_precision_layouts(dtype, layout):
    check_against_reference(CASES[5], dtype=dtype, layout=layout)
    check_against_reference(CASES[12], dtype=dtype, layout=layout)


@small_by_label
def test_derivatives_match_differences(case):
    check_derivatives(case)


def test_registration():
    check_registration(CASES[3], layouts=["channels_last"])


@pytest.mark.parametrize("case", [CASES[2], CASES[9], CASES[12]], ids=lambda case: case.label)
def test_results_repeat_to_the_bit(case):
    check_repeatable(case)


def test_compiles_whole():
    check_compiled(CASES[3])


@pytest.mark.slow
def test_reference_compiles_whole():
    def call(inputs):
        with ops.reference():
            return CASES[3].call(inputs)

    case = CASES[3]
    check_compiled(OpCase(f"reference {case.label}", call, case.inputs, case.differentiable))


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


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_results_keep_dtypes_and_layouts(layout):
    arrange = LAYOUTS[layout]
    q, p = (arrange(t.bfloat16()).requires_grad_() for t in buffers(width=6))
    x = arrange(torch.randn(2, 6, 4, 5)).requires_grad_()
    z, kl, y = latent(q, p, x=x, reduce="none")
    assert (z.dtype, kl.dtype, y.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    gradients = torch.autograd.grad(z.sum() + kl.sum() + y.square().sum(), (q, p, x))
    assert [g.dtype for g in gradients] == [torch.bfloat16, torch.bfloat16, torch.float32]
    kept = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert all(t.is_contiguous(memory_format=kept) for t in (z, kl, y, *gradients))


@pytest.mark.parametrize("layouts", [("contiguous", "channels_last"), ("channels_last", "strided")])
@pytest.mark.parametrize("dtypes", [*itertools.permutations(TOLERANCES, 2)], ids=str)
def test_the_residual_has_a_dtype_and_layout_of_its_own(dtypes, layouts):
    (dtype, x_dtype), (layout, x_layout) = dtypes, layouts
    q, p = (LAYOUTS[layout](t.to(dtype)).requires_grad_() for t in buffers(width=4))
    x = LAYOUTS[x_layout](torch.randn(2, 4, 4, 5).to(x_dtype)).requires_grad_()
    cotangent = torch.randn(2, 4, 4, 5).to(x_dtype)
    results = []
    for mode in (nullcontext, ops.reference):
        with mode():
            y = latent(q, p, x=x).y
        results.append((y, *torch.autograd.grad(y, (p, x), cotangent)))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert results[0][0].stride() == results[1][0].stride()


def test_meta_tensors_have_the_shapes_of_results():
    q, p = (t.to("meta") for t in buffers(width=2))
    z, kl, y = ops.gaussian_latent(q, p, rng=RNG.to("meta"))
    assert (z.shape, kl.shape, y) == ((2, 3, 4, 5), (2,), None)
    assert z.device.type == "meta"


@pytest.mark.parametrize("std", ["softplus", "log"])
def test_kl_is_that_of_torch_distributions(std):
    q, p = buffers(dtype=torch.float64)

    def normal(buffer):
        mean, raw = buffer.chunk(2, dim=1)
        return Normal(mean, raw.exp() if std == "log" else 0.1 + torch.log2(1 + 2**raw))

    expected = kl_divergence(normal(q), normal(p))
    kl = latent(q, p, std=std, floor=0.1, reduce="none").kl
    torch.testing.assert_close(kl, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("std", ["softplus", "log"])
def test_kl_is_the_mean_log_ratio_of_draws(std):
    draws = 200_000
    q, p = (t.expand(-1, -1, draws) for t in buffers(1, 1, (1,), dtype=torch.float64))
    z, kl, _ = latent(q, p, std=std, reduce="none")

    def log_prob(buffer):
        mean, raw = buffer.chunk(2, dim=1)
        return Normal(mean, raw.exp() if std == "log" else 1e-3 + torch.log2(1 + 2**raw)).log_prob(
            z
        )

    ratio = log_prob(q) - log_prob(p)
    error = ratio.std() / math.sqrt(draws)
    assert ratio.mean().item() == pytest.approx(kl.mean().item(), abs=5 * error.item())


@pytest.mark.parametrize("std", ["softplus", "log"])
def test_kl_is_never_negative(std):
    q, p = buffers(8, 4, (31, 33))
    assert latent(q, p, std=std, reduce="none").kl.min() >= 0
    # Near the prior the terms cancel: rounding of values around 1 is what may remain.
    near = latent(q, q + 1e-4 * torch.randn_like(q), std=std, reduce="none").kl
    assert near.min() >= -4 * torch.finfo(torch.float32).eps
    assert (latent(q, q.clone(), std=std).kl == 0).all()


@pytest.mark.parametrize("reduce", ["sample", "channel_group", "channel"])
def test_reductions_sum_the_unreduced_kl(reduce):
    q, p = buffers(3, 6, (17, 5))
    per_element = latent(q, p, reduce="none").kl.double()
    groups = {"sample": 1, "channel_group": 2, "channel": 6}[reduce]
    expected = per_element.reshape(3, groups, -1).sum(2)
    kl = latent(q, p, reduce=reduce, groups=2 if reduce == "channel_group" else None).kl
    expected = expected.squeeze(1) if reduce == "sample" else expected
    torch.testing.assert_close(kl.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("std", ["softplus", "log"])
@pytest.mark.parametrize(("sigma_q", "sigma_p"), [(1e-3, 1e4), (1e4, 1e-3), (1e4, 1e4), (1, 1e-3)])
def test_extreme_gaussians_stay_finite(std, sigma_q, sigma_p):
    def buffer(mean, sigma):
        raw = math.log(sigma) if std == "log" else sigma + min(0.0, math.log2(-math.expm1(-sigma)))
        values = torch.tensor([mean, mean, raw, raw]).view(1, 4, 1, 1)
        return values.expand(1, 4, 3, 3).contiguous().requires_grad_()

    q, p = buffer(1e4, sigma_q), buffer(0.0, sigma_p)
    z, kl, _ = latent(q, p, std=std)
    gradients = torch.autograd.grad(z.sum() + kl.sum(), (q, p))
    assert all(t.isfinite().all() for t in (z, kl, *gradients))
    assert (kl > 0).all()


@pytest.mark.parametrize("std", ["softplus", "log"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("channel", range(4))
def test_bad_values_spread_to_their_own_sample_only(std, value, channel):
    for owner in range(2):
        parameters = buffers(3, 2, (4, 5))
        parameters[owner][1, channel, 2, 3] = value
        q, p = (t.requires_grad_() for t in parameters)
        z, kl, _ = latent(q, p, std=std)
        (z.sum() + kl.sum()).backward()
        assert not kl[1].isfinite()
        if math.isnan(value):
            assert torch.cat([q.grad[1], p.grad[1]]).isnan().any()
        assert kl[0::2].isfinite().all()
        assert q.grad[0::2].isfinite().all()
        assert p.grad[0::2].isfinite().all()


@pytest.mark.parametrize("present", ["z", "kl", "y", "z kl", "kl y"])
def test_absent_gradients_are_zeros(present):
    present = present.split()
    q, p = (t.requires_grad_() for t in buffers(width=2))
    x = torch.randn(2, 2, 4, 5, requires_grad=True)
    result = latent(q, p, x=x)._asdict()
    partial = torch.autograd.grad(
        sum(result[name].sum() for name in present), (q, p, x), materialize_grads=True,
        retain_graph=True,
    )  # fmt: skip
    full = torch.autograd.grad(
        sum((name in present) * value.sum() for name, value in result.items()), (q, p, x)
    )
    for got, wanted in zip(partial, full, strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("only", ["q", "p", "x"])
def test_a_gradient_may_be_wanted_of_one_input(only):
    q, p = buffers(width=2)
    inputs = {"q": q, "p": p, "x": torch.randn(2, 2, 4, 5)}
    inputs[only].requires_grad_()
    z, kl, y = ops.gaussian_latent(**inputs, rng=RNG)
    (z.sum() + kl.sum() + y.sum()).backward()
    assert inputs[only].grad.isfinite().all()


def test_further_channels_get_no_gradient_without_a_residual():
    q, p = (t.requires_grad_() for t in buffers(width=2))
    z, kl, y = latent(q, p)
    assert y is None
    (z.sum() + kl.sum()).backward()
    assert (p.grad[:, 6:] == 0).all()


def test_noise_belongs_to_the_sample():
    q, p = buffers(8)
    whole = ops.gaussian_latent(q, p, rng=ops.make_rng(1, 100), stream=2)
    half = ops.gaussian_latent(q[4:], p[4:], rng=ops.make_rng(1, 104), stream=2)
    assert torch.equal(whole.z[4:], half.z)
    assert torch.equal(whole.kl[4:], half.kl)


def test_drawn_noise_is_that_of_philox_normal():
    q, p = buffers(dtype=torch.float64)
    eps = ops.philox_normal(RNG, 7, (2, 3, 4, 5), torch.float64)
    drawn, given = latent(q, p, stream=7), latent(q, p, stream=7, eps=eps)
    torch.testing.assert_close(drawn.z, given.z, rtol=1e-12, atol=1e-12)


def test_kl_uses_unrounded_values():
    q, p = buffers(4, 8, (16, 16), dtype=torch.bfloat16)
    exact = latent(q.double(), p.double()).kl
    torch.testing.assert_close(latent(q, p).kl.double(), exact, rtol=1e-6, atol=0)


def test_the_reference_is_differentiable_in_eps_and_twice():
    q, p = (t.requires_grad_() for t in buffers())
    eps = torch.randn(2, 3, 4, 5, requires_grad=True)
    with ops.reference():
        z, kl, _ = latent(q, p, eps=eps)
    grad_q, _ = torch.autograd.grad(z.square().sum() + kl.sum(), (q, eps), create_graph=True)
    grad_q.square().sum().backward()
    assert eps.grad.isfinite().all()


def test_a_second_derivative_is_refused():
    q, p = (t.requires_grad_() for t in buffers())
    (grad_q,) = torch.autograd.grad(latent(q, p).kl.sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"differentiable once.*hvae.ops.reference"):
        grad_q.sum().backward()


def test_a_gradient_of_eps_is_refused():
    q, p = buffers()
    eps = torch.randn(2, 3, 4, 5, requires_grad=True)
    with pytest.raises(NotImplementedError, match="computes no gradient for eps"):
        latent(q, p, eps=eps)


def bad(**changed):
    q, p = buffers(width=2)
    return {"q": q, "p": p, "x": torch.randn(2, 2, 4, 5), "rng": RNG} | changed


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (bad(q=torch.zeros(2, 6, 4, 5).int()), TypeError, "q must be float32.*got torch.int32"),
        (bad(q=torch.zeros(2, 6)), ValueError, r"q must be \(B, channels, \*S\).*\(2, 6\)"),
        (bad(q=torch.zeros(2, 5, 4, 5)), ValueError, "q must have 2C channels.*got 5"),
        (bad(p=torch.zeros(2, 8, 4, 5).double()), TypeError, "p must have the dtype of q"),
        (bad(p=torch.zeros(2, 5, 4, 5)), ValueError, r"with 6 channels or more, got \(2, 5"),
        (bad(p=torch.zeros(2, 8, 4, 4)), ValueError, r"p must have the shape of q.*\(2, 8, 4, 4\)"),
        (bad(p=torch.zeros(2, 6, 4, 5)), ValueError, "x needs W more channels in p than the 6"),
        (bad(x=torch.zeros(2, 3, 4, 5)), ValueError, r"x must have shape \(2, 2, 4, 5\)"),
        (bad(x=torch.zeros(2, 2, 4, 5).int()), TypeError, "x must be float32.*got torch.int32"),
        (bad(eps=torch.zeros(2, 3, 4, 4)), ValueError, r"eps must have shape \(2, 3, 4, 5\)"),
        (bad(eps=torch.zeros(2, 3, 4, 5).half()), TypeError, "eps must have the dtype of q"),
        (bad(rng=torch.zeros(2)), TypeError, "rng must be int64"),
        (bad(rng=RNG.to("meta")), ValueError, "rng must be on the device of q, cpu, got meta"),
        (bad(stream=-1), ValueError, "stream must be in"),
        (bad(floor=-0.1), ValueError, "floor must be finite and >= 0, got -0.1"),
        (bad(floor=math.nan), ValueError, "floor must be finite and >= 0, got nan"),
        (bad(std="exp"), ValueError, r"std must be one of \['log', 'softplus'\], got 'exp'"),
        (bad(reduce="batch"), ValueError, "reduce must be one of .*got 'batch'"),
        (bad(reduce="channel_group"), ValueError, "groups goes with reduce=.*got groups=None"),
        (bad(groups=3), ValueError, "groups goes with reduce=.*got groups=3"),
        (bad(reduce="channel_group", groups=2), ValueError, "groups must divide the 3 latent"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.gaussian_latent(**arguments)
