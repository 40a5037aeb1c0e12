"""A batch in parts takes the step of the whole batch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hvae.training import Config
from hvae.training.accumulate import parts_of
from hvae.training.build import build_model
from hvae.training.step import Stepper


@pytest.fixture
def stepper(tiny: Callable[..., Config]) -> Callable[..., Stepper]:
    def make(*overrides: str) -> Stepper:
        config = tiny("model.size=[8,8]", "model.channels=1", *overrides)
        return Stepper(build_model(config, torch.device("cpu")), config.train, config.seed)

    return make


@pytest.mark.parametrize("parts", [2, 3, 6])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("free_bits=0.2",), id="free bits"),
        pytest.param(("free_bits=0",), id="separable"),
        pytest.param(("free_bits=0.05", "kl_share=true", "spectral=0.1"), id="weighted"),
    ],
)
def test_parts_give_the_gradient_and_the_report_of_the_whole(
    stepper: Callable[..., Stepper], parts: int, options: tuple[str, ...]
) -> None:
    keys = [f"train.objective.{option}" for option in options]
    keys += ["train.images=100000", "train.objective.kl_warmup_images=0"]
    whole, part = stepper(*keys), stepper(*keys, f"train.accumulate={parts}")
    x = torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8)
    gradients = []
    for each in (whole, part):
        move_off_the_start(each)
        elbo, loss, _ = each._backward((x,), 6)
        gradients.append((loss.detach(), elbo.nll.detach(), elbo.kl.detach(), gradient(each)))
    for wanted, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6 * wanted.abs().max().item())


def test_groups_on_both_sides_of_their_free_bits(stepper: Callable[..., Stepper]) -> None:
    """The case that a mean over parts gets wrong: parts of one batch that disagree."""
    keys = ("train.images=100000", "train.objective.kl_warmup_images=0")
    each = stepper(*keys)
    move_off_the_start(each)
    x = torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8)
    kl = each._elbo(each.model, (x,), each._noise(0)).kl.detach()
    free = kl.mean(0)[0] * each.model.num_groups / each.model.num_dims
    wanted, got, naive = (
        stepper(*keys, f"train.objective.free_bits={free * 0.999}", *more)
        for more in ([], ["train.accumulate=6"], [])
    )
    assert kl[:, 0].min() < kl[:, 0].mean() < kl[:, 0].max()
    for one in (wanted, got, naive):
        move_off_the_start(one)
    wanted._backward((x,), 6)
    got._backward((x,), 6)
    for i in range(6):
        naive.images = i + 1
        naive._backward((x[i : i + 1],), 1)
    exact, other = gradient(got) - gradient(wanted), gradient(naive) / 6 - gradient(wanted)
    assert exact.norm() < 1e-5 * gradient(wanted).norm()
    assert other.norm() > 1e-3 * gradient(wanted).norm()


def test_steps_in_parts_follow_the_whole(stepper: Callable[..., Stepper]) -> None:
    x = torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8)
    whole, part = stepper(), stepper("train.accumulate=4")
    for _ in range(4):
        wanted, got = whole.step(x), part.step(x)
        torch.testing.assert_close(got.objective, wanted.objective, rtol=1e-4, atol=0)
        torch.testing.assert_close(got.kl, wanted.kl, rtol=1e-3, atol=1e-3)
        assert got.grad_norm == pytest.approx(wanted.grad_norm, rel=1e-3)
    assert part.images == 24


def test_parts_keep_the_order_and_the_place_of_examples() -> None:
    x, cond = torch.arange(5), torch.arange(5) * 10
    found = [(part[0].tolist(), part[1].tolist(), at) for part, at in parts_of((x, cond), 100, 2)]
    assert found == [([0, 1, 2], [0, 10, 20], 100), ([3, 4], [30, 40], 103)]


def move_off_the_start(stepper: Stepper) -> None:
    """Moves weights from where priors are N(0, 1), the same for every stepper."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in stepper.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    stepper.images = 6


def gradient(stepper: Stepper) -> Tensor:
    return torch.cat([p.grad.flatten() for p in stepper.model.parameters() if p.grad is not None])
