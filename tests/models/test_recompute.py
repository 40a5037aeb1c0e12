"""A backward that recomputes gives what one that keeps everything gives, from less memory."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from hvae.errors import UserError
from hvae.models import HVAE
from hvae.models.recompute import LEVELS, Level, Recompute, runs
from hvae.ops import make_rng

LADDER = {
    "size": (8, 8),
    "encoder": "8x3,8d2,4x1,4d4,1x1",
    "decoder": "1x1,4m1,4x2,8m4,8x2",
    "activation": "gelu",
}


def everywhere(model: HVAE, level: Level, head: int = 0) -> Recompute:
    encoder = dict.fromkeys(model.encoder.resolutions, level)
    return Recompute(encoder, dict.fromkeys(model.decoder.resolutions, level), head)


def training_pass(
    model: HVAE, x: Tensor, cond: Tensor | None = None
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """The ELBO's parts, and the gradient of every parameter."""
    elbo = model(x, cond, rng=make_rng(1, 7))
    gradients = torch.autograd.grad(
        -elbo.elbo.mean(), list(model.parameters()), materialize_grads=True
    )
    return tuple(part.detach() for part in elbo), list(gradients)


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("level", LEVELS[1:])
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="plain"),
        pytest.param({"attention": (4,), "posterior": "residual", "taper": 1.5}, id="options"),
        pytest.param({"condition": {"kind": "class", "classes": ("a", "b")}}, id="conditional"),
    ],
)
def test_results_and_gradients_are_bitwise_those_of_keeping_everything(
    make_model: Callable[..., HVAE],
    random_images: Callable[..., Tensor],
    level: Level,
    changes: dict[str, object],
    bf16: bool,
) -> None:
    model = make_model(**{**LADDER, **changes}).train()
    x = random_images(model, 3)
    cond = torch.tensor([0, 1, 1]) if model.condition is not None else None
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        elbo, gradients = training_pass(model, x, cond)
        model.recompute(everywhere(model, level))
        again, recomputed = training_pass(model, x, cond)
    assert all(map(torch.equal, elbo, again))
    assert all(map(torch.equal, gradients, recomputed))
    assert all(g.any() for g in gradients[:4])


def test_levels_hold_less_the_higher_they_are(
    make_model: Callable[..., HVAE], random_images: Callable[..., Tensor]
) -> None:
    model = make_model(**LADDER, width=32)
    x = random_images(model, 2)
    held = []
    for level in LEVELS:
        model.recompute(everywhere(model, level))
        held.append(held_bytes(lambda: model(x)))
    assert held == sorted(held, reverse=True)
    assert held[1] < 0.45 * held[0]  # elementwise
    assert held[3] < 0.25 * held[0]  # block


def test_one_resolution_recomputes_and_the_others_do_not(
    make_model: Callable[..., HVAE], random_images: Callable[..., Tensor]
) -> None:
    model = make_model(**LADDER)
    x = random_images(model, 2)
    calls: list[int] = []
    for block in model.decoder.blocks:
        block.register_forward_pre_hook(lambda *_: calls.append(1))
    model.recompute(Recompute(decoder={8: "block"}))
    model(x).elbo.mean().backward()
    assert len(calls) == 7 + 3  # of which three stand at resolution 8


def test_nothing_is_recomputed_without_gradients(
    make_model: Callable[..., HVAE], random_images: Callable[..., Tensor]
) -> None:
    model = make_model(**LADDER)
    x = random_images(model, 2)
    with torch.no_grad():
        wanted = model(x)
        model.recompute(everywhere(model, "block", head=2))
        assert all(map(torch.equal, wanted, model(x)))
    model.sample(1)


@pytest.mark.parametrize("bands", [1, 3, 4, 100])
@pytest.mark.parametrize("patch", [1, 2])
def test_a_head_in_bands_has_the_same_value(
    make_model: Callable[..., HVAE], random_images: Callable[..., Tensor], bands: int, patch: int
) -> None:
    size = (8 * patch, 16 * patch)
    model = make_model(**{**LADDER, "size": size}, channels=3, patch=patch)
    x = random_images(model, 2)
    elbo, gradients = training_pass(model, x)
    model.recompute(Recompute(head=bands))
    again, recomputed = training_pass(model, x)
    for wanted, got in zip((*elbo, *gradients), (*again, *recomputed), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6 * wanted.abs().max().item())


def test_a_head_in_bands_never_forms_the_parameters_of_all_pixels(
    make_model: Callable[..., HVAE], random_images: Callable[..., Tensor]
) -> None:
    model = make_model(size=(32, 32), encoder="32x1", decoder="32x1", likelihood={"mixtures": 30})
    x = random_images(model, 2)
    whole = held_bytes(lambda: model(x))
    model.recompute(Recompute(head=8))
    params = 4 * 2 * model.likelihood.num_parameters * 32 * 32
    assert whole - held_bytes(lambda: model(x)) > 0.95 * params


def test_a_likelihood_with_noise_refuses_bands(make_model: Callable[..., HVAE]) -> None:
    model = make_model(likelihood={"kind": "gaussian"})
    with pytest.raises(UserError, match="a gaussian draws noise for an image as a whole"):
        model.recompute(Recompute(head=2))


def test_a_resolution_without_blocks_is_refused(make_model: Callable[..., HVAE]) -> None:
    with pytest.raises(UserError, match="decoder: no block stands at resolution 16"):
        make_model().recompute(Recompute(decoder={16: "block"}))


@pytest.mark.parametrize(
    ("level", "wanted"),
    [
        ("none", [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)]),
        ("pointwise", [(0, 1), (1, 3), (3, 5), (5, 6), (6, 7)]),
    ],
)
def test_runs_end_where_the_resolution_changes_and_at_cuts(
    level: Level, wanted: list[tuple[int, int]]
) -> None:
    levels: dict[int, Level] = {8: level, 4: "block", 1: level}
    found = runs([1, 8, 8, 8, 8, 4, 4], levels, cuts={3})
    assert [(run.start, run.stop) for run in found] == wanted


def held_bytes(call: Callable[[], object]) -> int:
    """Bytes that a call's result keeps alive, whatever holds them, by the allocator's account."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = call()
    events = profiler.profiler.kineto_results.events()
    total = sum(event.nbytes() for event in events if event.name() == "[memory]")
    del result
    return total
