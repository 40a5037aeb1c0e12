"""Optimiser, learning rate, and the optimiser's state as named tensors."""

from collections.abc import Collection
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hvae.losses.schedule import cosine_decay, linear_ramp
from hvae.training.config import TrainConfig
from hvae.training.sharding import fill


def make_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Returns the optimiser of a run; its learning rate is set before each step."""
    parameters = list(model.parameters())
    if config.optimizer == "adamax":
        betas = config.betas or (0.9, 0.999)
        return torch.optim.Adamax(parameters, lr=config.lr, betas=betas, foreach=True)
    # One kernel per step. Adamax has none; on a CPU lists keep the results of older versions.
    fused = all(parameter.is_cuda for parameter in parameters)
    return torch.optim.AdamW(
        parameters,
        lr=config.lr,
        betas=config.betas or (0.9, 0.9),
        weight_decay=config.weight_decay,
        fused=fused,
        foreach=not fused,
    )


def learning_rate(images: int, config: TrainConfig) -> float:
    """Returns the learning rate of the step that ends at `images` images."""
    rate = config.lr * linear_ramp(images, config.warmup_images)
    if config.schedule == "cosine":
        rate *= cosine_decay(images, config.images, config.lr_final)
    return rate


def optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Returns the optimiser's state as tensors named `<parameter>.<moment>`."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def wanted_optimizer_tensors(
    model: nn.Module, optimizer: Optimizer, names: Collection[str]
) -> dict[str, Tensor]:
    """Returns tensors on the meta device like those that `optimizer_tensors` gives after a step.

    Args:
        model: whose parameters are optimised.
        optimizer: the kind.
        names: of the tensors at hand; a parameter that none of them is of has had no gradient yet.
    """
    probe = nn.Parameter(torch.zeros(2))
    probe.grad = torch.zeros_like(probe)
    stepped = cast(Any, type(optimizer))([probe])
    stepped.step()
    with_moments = {name.rpartition(".")[0] for name in names}
    return {
        f"{name}.{key}": torch.empty(like.shape, dtype=like.dtype, device="meta")
        for name, parameter in model.named_parameters()
        if name in with_moments
        for key, value in stepped.state[probe].items()
        for like in [parameter if value.shape == probe.shape else value]
    }


def load_optimizer_tensors(
    model: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor]
) -> None:
    """Restores what `optimizer_tensors` returned."""
    parameters = dict(model.named_parameters())
    for full_name, tensor in tensors.items():
        name, key = full_name.rsplit(".", 1)
        parameter = parameters[name]
        # Moments lie in memory as their parameter does: kernels round differently per layout.
        own = torch.empty_like(parameter if tensor.shape == parameter.shape else tensor)
        if optimizer.defaults.get("fused"):  # which keeps its count of steps on the device
            own = own.to(parameter.device)
        fill(own, tensor)
        optimizer.state[parameter][key] = own
