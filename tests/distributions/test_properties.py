"""What every likelihood promises, at every bit depth and number of channels it supports."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from hvae import ops
from hvae.distributions import LikelihoodConfig, make_likelihood
from hvae.models import HVAE, ModelConfig

ENDS = torch.tensor([0, 255], dtype=torch.uint8)
DRAWS = 20_000


def images_for(case, params: Tensor) -> Tensor:
    """Random images, both ends of the range among them."""
    x = torch.randint(256, (len(params), case.channels, *params.shape[2:]), dtype=torch.uint8)
    x[..., 0], x[..., -1] = 0, 255
    return x


def every_image(case) -> Tensor:
    """All images of one pixel, (L^C, C, 1)."""
    return torch.cartesian_prod(*[case.values] * case.channels).view(-1, case.channels, 1)


def masses(case, params: Tensor) -> Tensor:
    """Of all images of one pixel, for parameters (1, P, 1)."""
    x = every_image(case)
    return case.likelihood(params.expand(len(x), -1, -1)).log_prob(x).exp()


def assert_drawn_by(counts: Tensor, wanted: Tensor) -> None:
    """A chi-squared test at 1e-6; cells that expect fewer than 5 are one."""
    rare = wanted < 5
    found = [*counts[~rare].tolist(), counts[rare].sum().item()]
    expected = [*wanted[~rare].tolist(), wanted[rare].sum().item()]
    if expected[-1] < 5:  # still rare: a Poisson count
        assert found.pop() < expected[-1] + 5 * math.sqrt(expected[-1]) + 5
        expected.pop()
    if len(found) > 1:
        total = sum(found) / sum(expected)
        assert stats.chisquare(found, [e * total for e in expected]).pvalue > 1e-6


@pytest.mark.parametrize("log_scale", [-9.0, -5.0, -2.0, 0.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_masses_of_all_levels_sum_to_one(masses_at_depth, log_scale, dtype):
    for _ in range(3):
        params = masses_at_depth.params(1, 1, log_scale=log_scale, dtype=dtype)
        tolerance = 1e-12 if dtype == torch.float64 else 2e-5
        assert masses(masses_at_depth, params).sum().item() == pytest.approx(1, abs=tolerance)


def test_masses_of_all_channels_together_sum_to_one(joint):
    params = joint.params(1, 1, log_scale=-1.0)
    assert masses(joint, params).sum().item() == pytest.approx(1, abs=1e-12)


def test_draws_have_the_masses_that_are_scored(masses_at_depth):
    params = masses_at_depth.params(1, 1)
    drawn = masses_at_depth.likelihood(params.expand(1, -1, DRAWS)).sample(ops.make_rng(1))
    assert set(drawn.unique().tolist()) <= set(masses_at_depth.values.tolist())
    levels = (drawn.flatten().long() * (masses_at_depth.levels - 1) / 255).round().long()
    counts = torch.bincount(levels, minlength=masses_at_depth.levels)
    assert_drawn_by(counts, DRAWS * masses(masses_at_depth, params))


def test_draws_of_all_channels_have_the_masses_that_are_scored(joint):
    params = joint.params(1, 1, log_scale=-1.0)
    drawn = joint.likelihood(params.expand(1, -1, DRAWS)).sample(ops.make_rng(2))
    levels = (drawn.flatten(2).squeeze(0).long() * (joint.levels - 1) / 255).round().long()
    index = torch.zeros(DRAWS, dtype=torch.long)
    for channel in levels:
        index = index * joint.levels + channel
    counts = torch.bincount(index, minlength=joint.levels**joint.channels)
    assert_drawn_by(counts, DRAWS * masses(joint, params))


def test_draws_do_not_depend_on_the_batch(of_channels):
    params = of_channels.params(5, 3, 3, dtype=torch.float32)
    whole = of_channels.likelihood(params).sample(ops.make_rng(3, 7))
    assert len(whole.flatten(1).unique(dim=0)) == 5
    for start, stop in [(0, 1), (1, 4), (4, 5)]:
        part = of_channels.likelihood(params[start:stop]).sample(ops.make_rng(3, 7 + start))
        assert torch.equal(part, whole[start:stop])


def test_pixels_and_channels_are_drawn_independently(of_channels):
    """Equal parameters everywhere: no two elements share their noise."""
    params = of_channels.params(1, 1, log_scale=-1.0).expand(2000, -1, 6)
    drawn = of_channels.likelihood(params).sample(ops.make_rng(4)).flatten(2).double()
    neighbours = torch.corrcoef(drawn[:, 0].T).nan_to_num(0.0)
    off_diagonal = neighbours - torch.diag(neighbours.diagonal())
    assert off_diagonal.abs().max() < 5 / math.sqrt(2000)


def test_scores_do_not_depend_on_the_batch(of_channels):
    params = of_channels.params(5, 3, 3)
    x = images_for(of_channels, params)
    whole = of_channels.likelihood(params).log_prob(x, rng=ops.make_rng(3, 7))
    for start, stop in [(0, 1), (1, 4), (4, 5)]:
        part = of_channels.likelihood(params[start:stop])
        score = part.log_prob(x[start:stop], rng=ops.make_rng(3, 7 + start))
        torch.testing.assert_close(score, whole[start:stop], rtol=1e-12, atol=0)


@pytest.mark.parametrize("space", [(6,), (2, 3), (2, 1, 3)], ids=["1-D", "2-D", "3-D"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_shapes_and_dtypes(of_channels, space, dtype):
    params = of_channels.params(2, *space).to(dtype)
    x = images_for(of_channels, params)
    images = of_channels.likelihood(params)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    log_prob, mean = images.log_prob(x), images.mean()
    assert (log_prob.shape, log_prob.dtype) == ((2,), wide)
    assert (mean.shape, mean.dtype) == (x.shape, wide)
    for image in (images.sample(ops.make_rng(0)), images.mean_image()):
        assert (image.shape, image.dtype) == (x.shape, torch.uint8)
    assert torch.equal(images.mean_image(), mean.round().to(torch.uint8))
    upcast = of_channels.likelihood(params.to(wide))
    torch.testing.assert_close(log_prob, upcast.log_prob(x), rtol=1e-6, atol=0)
    assert torch.equal(images.sample(ops.make_rng(0)), upcast.sample(ops.make_rng(0)))


def test_layouts_and_empty_batches(of_channels):
    params = of_channels.params(2, 3, 4)
    x = images_for(of_channels, params)
    wanted = of_channels.likelihood(params).log_prob(x)
    for layout in (
        params.contiguous(memory_format=torch.channels_last),
        params.movedim(1, -1).contiguous().movedim(-1, 1),
        torch.stack([params, params.neg()], -1)[..., 0],
    ):
        found = of_channels.likelihood(layout)
        torch.testing.assert_close(found.log_prob(x), wanted, rtol=1e-12, atol=0)
        drawn = of_channels.likelihood(params).sample(ops.make_rng(0))
        assert torch.equal(found.sample(ops.make_rng(0)), drawn)
    empty = of_channels.likelihood(params[:0])
    assert empty.log_prob(x[:0]).shape == (0,)
    assert empty.sample(ops.make_rng(0)).shape == (0, *x.shape[1:])


def test_the_gradient_is_that_of_differences(at_depth):
    params = at_depth.params(1, 2).requires_grad_()
    x = images_for(at_depth, params)
    assert torch.autograd.gradcheck(lambda p: at_depth.likelihood(p).log_prob(x), params)


def test_the_gradient_of_all_channels_is_that_of_differences(few_parameters):
    params = few_parameters.params(1, 2, 2).requires_grad_()
    x = images_for(few_parameters, params)
    assert torch.autograd.gradcheck(lambda p: few_parameters.likelihood(p).log_prob(x), params)


def test_a_second_derivative_of_normal_masses_is_refused():
    likelihood = make_likelihood(LikelihoodConfig(kind="discretized_gaussian"), 1)
    params = torch.zeros(1, 2, 3, requires_grad=True)
    log_prob = likelihood(params).log_prob(torch.full((1, 1, 3), 9, dtype=torch.uint8))
    (gradient,) = torch.autograd.grad(log_prob.sum(), params, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiable once"):
        gradient.sum().backward()


@pytest.mark.parametrize("log_scale", [-8.0, -5.0, -2.0, 0.0, 2.0, 6.0])
def test_single_precision_follows_double(scaled, log_scale):
    params = scaled.params(2, 12, 12, log_scale=log_scale)
    x = images_for(scaled, params)

    def score(p: Tensor) -> tuple[Tensor, Tensor]:
        p = p.requires_grad_()
        log_prob = scaled.likelihood(p).log_prob(x)
        (gradient,) = torch.autograd.grad(log_prob.sum(), p)
        return log_prob.detach().double(), gradient.double().flatten()

    (log_prob, gradient), (exact, wanted) = score(params.float()), score(params.float().double())
    torch.testing.assert_close(log_prob, exact, rtol=1e-5, atol=1e-3)
    assert (gradient - wanted).norm() < 5e-5 * wanted.norm()
    assert torch.cosine_similarity(gradient, wanted, 0) > 1 - 1e-6


def test_the_mean_is_that_of_many_draws(averaged_at_depth):
    case = averaged_at_depth
    # The mean of a mixture ignores what its end levels take from the tails, that of a density all.
    inside = case.kind in ("gaussian", "logistic_mixture")
    params = case.params(1, 1, **({"spread": 0.2, "log_scale": -3.0} if inside else {}))
    images = case.likelihood(params.expand(1, -1, DRAWS))
    if case.masses:
        drawn = images.sample(ops.make_rng(5)).double()
    else:
        drawn = (images.draw(ops.make_rng(5)) + 1) * 127.5
    error = drawn.std().item() / math.sqrt(DRAWS)
    # Values of levels are rounded to integers.
    rounded = (case.values - torch.arange(case.levels) * 255 / (case.levels - 1)).abs().max().item()
    wanted = case.likelihood(params).mean().item()
    assert drawn.mean().item() == pytest.approx(wanted, abs=4.5 * error + rounded)


def test_the_mean_is_differentiable(of_channels):
    params = of_channels.params(1, 2, spread=0.3, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(of_channels.likelihood(params).mean().sum(), params)
    assert gradient.isfinite().all()
    assert gradient.any()


def test_at_temperature_zero_the_most_likely_value_is_drawn(masses_at_depth):
    params = masses_at_depth.params(1, 1, log_scale=-3.0, spread=0.4)
    if masses_at_depth.kind == "logistic_mixture":
        params[:, 0] += 50.0  # of components the first alone; the others would be drawn too
    images = masses_at_depth.likelihood(params)
    probable = every_image(masses_at_depth)[masses(masses_at_depth, params).argmax()]
    for seed in range(3):
        assert torch.equal(images.sample(ops.make_rng(seed), temperature=0.0)[0], probable)


def test_the_spread_of_draws_rises_with_the_temperature(at_depth):
    params = at_depth.params(1, 1, spread=0.1).expand(1, -1, DRAWS)
    if at_depth.kind in ("bernoulli", "categorical"):
        params = 10 * params  # away from equal logits, which no temperature changes
    images = at_depth.likelihood(params)
    cold, warm = (
        images.sample(ops.make_rng(6), temperature=t).flatten().unique(return_counts=True)[1]
        for t in (0.2, 1.5)
    )
    assert entropy(cold) < entropy(warm)


def entropy(counts: Tensor) -> float:
    return stats.entropy(counts.tolist())


def test_end_levels_take_the_tails(tailed_at_depth):
    params = tailed_at_depth.params(1, 1, log_scale=0.0)
    for end, far in zip(ENDS, (-50.0, 50.0), strict=True):
        beyond = params.clone()
        locations = MIXTURE_MEANS if tailed_at_depth.kind == "logistic_mixture" else slice(0, 1)
        beyond[:, locations] = far
        image = end.view(1, 1, 1)
        assert tailed_at_depth.likelihood(beyond).log_prob(image).item() > -1e-12
        assert tailed_at_depth.likelihood(beyond).mean_image().item() == end.item()


MIXTURE_MEANS = slice(3, 6)


@pytest.mark.parametrize("value", [-1e4, -60.0, 60.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_extreme_parameters_stay_finite(of_channels, value, dtype):
    if of_channels.kind == "logistic_mixture":
        value = max(-60.0, min(60.0, value))  # as its op promises
    alternating = torch.tensor([value, -value]).repeat(of_channels.likelihood.num_parameters)
    for pattern in (torch.full_like(alternating, value), alternating):
        params = pattern[: of_channels.likelihood.num_parameters].to(dtype).view(1, -1, 1)
        params = params.expand(1, -1, 4).clone().requires_grad_()
        images = of_channels.likelihood(params)
        x = torch.tensor([0, 1, 254, 255], dtype=torch.uint8).expand(1, of_channels.channels, 4)
        log_prob = images.log_prob(x)
        (gradient,) = torch.autograd.grad(log_prob.sum(), params)
        assert log_prob.isfinite().all()
        assert gradient.isfinite().all()
        assert images.mean().isfinite().all()
        for temperature in (0.0, 1.0):
            assert images.sample(ops.make_rng(0), temperature=temperature).shape == x.shape


def test_a_density_integrates_to_one():
    likelihood = make_likelihood(LikelihoodConfig(kind="gaussian"), 1)
    grid = torch.linspace(-60, 60, 600_001, dtype=torch.float64)
    for location, log_scale in [(0.3, -4.0), (-2.0, 0.0), (0.0, 1.5)]:
        params = torch.tensor([location, log_scale], dtype=torch.float64).view(1, 2, 1)
        log_density = likelihood(params).log_density(grid.view(1, 1, -1))
        assert torch.trapezoid(log_density.exp().flatten(), grid).item() == pytest.approx(1)


@pytest.mark.parametrize("bits", range(1, 9))
def test_dequantised_images_lie_in_the_bins_of_their_levels(bits):
    likelihood = make_likelihood(LikelihoodConfig(kind="gaussian", bits=bits), 1)
    levels = torch.arange(2**bits).repeat_interleave(500).to(torch.uint8)
    images = likelihood(torch.zeros(1, 2, len(levels), dtype=torch.float64))
    value = images.dequantised(levels.view(1, 1, -1), ops.make_rng(0)).flatten()
    last = 2**bits - 1
    within = (value * last - (2 * levels.double() - last) + 1) / 2
    assert within.min() > 0
    assert within.max() < 1
    assert stats.kstest(within.numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("bits", range(1, 9))
def test_a_density_has_the_mass_of_a_bin_on_average(bits):
    """E exp(log p) over the noise is the mass; so E log p stays below its logarithm."""
    params = torch.tensor([0.1, -1.5], dtype=torch.float64).view(1, 2, 1)
    x = torch.full((DRAWS, 1, 1), 128, dtype=torch.uint8)
    density = make_likelihood(LikelihoodConfig(kind="gaussian", bits=bits), 1)
    log_prob = density(params.expand(DRAWS, -1, -1)).log_prob(x, rng=ops.make_rng(7))
    if bits == 1:  # the bin [0, 2], without the tail that the end level of masses takes
        sigma = density(params).location_scale()[1].exp().item()
        mass = stats.norm(0.1, sigma).cdf(2) - stats.norm(0.1, sigma).cdf(0)
    else:
        cut = make_likelihood(LikelihoodConfig(kind="discretized_gaussian", bits=bits), 1)
        mass = cut(params).log_prob(x[:1]).exp().item()
    error = log_prob.exp().std().item() / math.sqrt(DRAWS)
    assert log_prob.exp().mean().item() == pytest.approx(mass, abs=4.5 * error + 1e-12)
    error = log_prob.std().item() / math.sqrt(DRAWS)
    assert log_prob.mean().item() < math.log(mass) + 4.5 * error


def test_draws_of_a_density_are_normal():
    params = torch.tensor([0.2, -1.0], dtype=torch.float64).view(1, 2, 1).expand(1, 2, DRAWS)
    images = make_likelihood(LikelihoodConfig(kind="gaussian"), 1)(params)
    _, log_scale = images.location_scale()
    normal = stats.norm(0.2, log_scale[0, 0, 0].exp().item())
    assert stats.kstest(images.draw(ops.make_rng(8)).flatten().numpy(), normal.cdf).pvalue > 1e-3


def test_draws_of_a_density_are_rounded_to_the_nearest_level(density_at_depth):
    cut = replace(density_at_depth, kind="discretized_gaussian")
    params = density_at_depth.params(3, 5, 7)
    drawn = density_at_depth.likelihood(params).sample(ops.make_rng(9))
    assert torch.equal(drawn, cut.likelihood(params).sample(ops.make_rng(9)))


def test_dequantisation_and_output_draws_share_no_noise():
    params = torch.zeros(1, 2, DRAWS, dtype=torch.float64)
    images = make_likelihood(LikelihoodConfig(kind="gaussian"), 1)(params)
    levels = torch.zeros(1, 1, DRAWS, dtype=torch.uint8)
    rng = ops.make_rng(0)
    pair = torch.stack([images.dequantised(levels, rng).flatten(), images.draw(rng).flatten()])
    assert abs(torch.corrcoef(pair)[0, 1].item()) < 4 / math.sqrt(DRAWS)


LADDERS = {
    "1-D": {"size": (8,), "encoder": "8x1,8d8,1x1", "decoder": "1x1,8m1"},
    "2-D": {"size": (4, 6), "encoder": "4x1,4d2,2x1", "decoder": "2x1,4m2"},
    "3-D": {"size": (4, 4, 4), "encoder": "4x1,4d4,1x1", "decoder": "1x1,4m1"},
}


@pytest.mark.parametrize("ladder", LADDERS)
def test_a_model_scores_draws_and_decodes(of_channels, ladder):
    settings = {
        **LADDERS[ladder],
        "channels": of_channels.channels,
        "width": 8,
        "z_channels": 2,
        "likelihood": of_channels.config,
    }
    model = HVAE(ModelConfig.model_validate(settings))
    x = torch.randint(256, (3, *model.shape), dtype=torch.uint8)
    elbo = model(x, rng=ops.make_rng(0))
    assert elbo.elbo.isfinite().all()
    elbo.nll.sum().backward()
    assert model.decoder.out_conv.weight.grad.isfinite().all()
    with torch.no_grad():
        again = model(x[1:], rng=ops.make_rng(0, 1))
        torch.testing.assert_close(again.nll, elbo.nll[1:].detach(), rtol=1e-4, atol=1e-3)
        weights = model.log_weights(x, rng=ops.make_rng(0))
        decoded = model.decode(model.encode(x))
        assert decoded.log_prob(x).shape == weights.shape == (3,)
    assert weights.isfinite().all()
    for image in (
        decoded.mean_image(),
        decoded.sample(ops.make_rng(0)),
        model.sample(3, output="sample"),
        model.sample(3, output="mean"),
    ):
        assert (image.shape, image.dtype) == (x.shape, torch.uint8)
    assert torch.equal(model.sample(3)[1:], model.sample(2, first_index=1))


def test_each_call_of_a_model_dequantises_anew():
    settings = {**LADDERS["1-D"], "channels": 1, "width": 8, "z_channels": 2}
    config = ModelConfig.model_validate({**settings, "likelihood": {"kind": "gaussian"}})
    model, x = HVAE(config), torch.full((1, 1, 8), 7, dtype=torch.uint8)
    eps = [torch.zeros(1, *shape) for shape in model.latent_shapes]
    with torch.no_grad():
        first, second, other = (
            model(x, rng=ops.make_rng(*state), eps=eps).nll for state in ((0, 0), (0, 0), (0, 1))
        )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.slow
def test_scores_compile_without_graph_breaks(of_colour):
    torch.compiler.reset()
    params = of_colour.params(2, 3, 4, dtype=torch.float32)
    x, rng, likelihood = images_for(of_colour, params), ops.make_rng(1), of_colour.likelihood

    def score(p: Tensor) -> Tensor:
        return likelihood(p).log_prob(x, rng=rng)

    torch.testing.assert_close(
        torch.compile(score, fullgraph=True)(params), score(params), rtol=1e-5, atol=1e-4
    )


@pytest.mark.gpu
def test_a_gpu_scores_and_averages_alike(of_channels):
    params = of_channels.params(2, 3, 4, dtype=torch.float32)
    x, rng = images_for(of_channels, params), ops.make_rng(1)
    here, there = of_channels.likelihood(params), of_channels.likelihood(params.cuda())
    score = there.log_prob(x.cuda(), rng=rng.cuda())
    torch.testing.assert_close(score.cpu(), here.log_prob(x, rng=rng), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(there.mean().cpu(), here.mean(), rtol=1e-4, atol=1e-2)
    drawn = there.sample(rng.cuda()).cpu().int()
    # A draw that rounds to another level by the last bit of its noise is a neighbour.
    if of_channels.has_scale:
        assert (drawn - here.sample(rng).int()).abs().max() <= 1
