"""Optimisers, learning rates, and moments as named tensors."""

import copy

import pytest
import torch
from torch import nn

from hvae.training import TrainConfig
from hvae.training.optim import (
    learning_rate,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
)

BOTH = pytest.mark.parametrize("optimizer", ["adamax", "adamw"])


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


@pytest.mark.parametrize(
    ("config", "betas"),
    [
        (TrainConfig(optimizer="adamax"), (0.9, 0.999)),
        (TrainConfig(optimizer="adamw"), (0.9, 0.9)),
        (TrainConfig(optimizer="adamw", betas=(0.8, 0.95)), (0.8, 0.95)),
    ],
)
def test_betas_follow_the_optimizer_unless_set(config, betas):
    (group,) = make_optimizer(nn.Linear(2, 2), config).param_groups
    assert group["betas"] == betas


def test_only_adamw_decays_weights():
    config = TrainConfig(weight_decay=0.3)
    assert make_optimizer(nn.Linear(2, 2), config).param_groups[0]["weight_decay"] == 0
    config = config.model_copy(update={"optimizer": "adamw"})
    assert make_optimizer(nn.Linear(2, 2), config).param_groups[0]["weight_decay"] == 0.3


@BOTH
def test_moments_survive_as_tensors(optimizer):
    config = TrainConfig(optimizer=optimizer)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 1, 1)).to(
        memory_format=torch.channels_last
    )
    first = make_optimizer(model, config)
    for seed in range(3):
        step(model, first, seed)
    saved = {name: tensor.contiguous() for name, tensor in optimizer_tensors(model, first).items()}
    assert {name.rsplit(".", 1)[0] for name in saved} == dict(model.named_parameters()).keys()

    twin = copy.deepcopy(model)
    second = make_optimizer(twin, config)
    load_optimizer_tensors(twin, second, saved)
    for seed in range(3, 6):
        step(model, first, seed)
        step(twin, second, seed)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
    for parameter, state in second.state.items():
        assert all(
            moment.stride() == parameter.stride()
            for moment in state.values()
            if moment.shape == parameter.shape
        )


def test_restored_moments_are_copies():
    model = nn.Linear(2, 2)
    optimizer = make_optimizer(model, TrainConfig())
    step(model, optimizer, 0)
    saved = optimizer_tensors(model, optimizer)
    kept = {name: tensor.clone() for name, tensor in saved.items()}
    twin = copy.deepcopy(model)
    other = make_optimizer(twin, TrainConfig())
    load_optimizer_tensors(twin, other, saved)
    step(twin, other, 1)
    assert all(torch.equal(saved[name], kept[name]) for name in saved)


def test_a_fresh_optimizer_has_nothing_to_save():
    model = nn.Linear(2, 2)
    assert optimizer_tensors(model, make_optimizer(model, TrainConfig())) == {}


@pytest.mark.parametrize(
    ("images", "rate"), [(0, 0.0), (50, 1.0), (100, 2.0), (1000, 2.0), (5000, 2.0)]
)
def test_a_constant_rate_follows_its_warm_up(images, rate):
    config = TrainConfig(images=1000, lr=2.0, warmup_images=100, schedule="constant")
    assert learning_rate(images, config) == pytest.approx(rate)


@pytest.mark.parametrize(("images", "rate"), [(0, 2.0), (500, 1.1), (1000, 0.2), (5000, 0.2)])
def test_a_cosine_ends_at_its_final_fraction(images, rate):
    config = TrainConfig(images=1000, lr=2.0, warmup_images=0, lr_final=0.1)
    assert learning_rate(images, config) == pytest.approx(rate)


def test_warm_up_and_cosine_multiply():
    config = TrainConfig(images=1000, lr=2.0, warmup_images=500, lr_final=0.1)
    without = config.model_copy(update={"warmup_images": 0})
    assert learning_rate(250, config) == pytest.approx(learning_rate(250, without) / 2)
