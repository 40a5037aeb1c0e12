"""The weight average."""

import copy

import pytest
import torch
from torch import nn

from hvae.training.ema import Ema


def linear() -> nn.Linear:
    return nn.Linear(3, 2)


def set_to(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def test_an_average_starts_at_the_weights():
    model = linear()
    ema = Ema(model, 0.9)
    for name, parameter in model.named_parameters():
        assert torch.equal(ema.tensors[name], parameter)
        assert not ema.tensors[name].requires_grad


def test_the_decay_warms_up():
    model = linear()
    set_to(model, 0.0)
    ema, expected = Ema(model, 0.5), 0.0
    for update in range(20):
        set_to(model, float(update))
        ema.update(model)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * update
        for tensor in ema.tensors.values():
            assert tensor.flatten().tolist() == pytest.approx([expected] * tensor.numel())
    assert ema.updates == 20


def test_without_decay_the_average_is_the_weights():
    model = linear()
    ema = Ema(model, 0.0)
    set_to(model, 3.0)
    ema.update(model)
    assert all(torch.equal(t, torch.full_like(t, 3.0)) for t in ema.tensors.values())


def test_weights_are_lent_and_come_back():
    model = linear()
    ema = Ema(model, 0.9)
    averaged = copy.deepcopy(ema.tensors)
    set_to(model, 5.0)
    with ema.applied_to(model):
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, averaged[name])
    assert all((parameter == 5).all() for parameter in model.parameters())
    assert all(torch.equal(ema.tensors[name], averaged[name]) for name in averaged)


def test_weights_come_back_after_an_error():
    model = linear()
    ema = Ema(model, 0.9)
    set_to(model, 5.0)
    with pytest.raises(ZeroDivisionError), ema.applied_to(model):
        raise ZeroDivisionError
    assert all((parameter == 5).all() for parameter in model.parameters())


def test_a_saved_average_is_restored_and_goes_on_alike():
    model = linear()
    ema = Ema(model, 0.9)
    for value in (1.0, 2.0):
        set_to(model, value)
        ema.update(model)
    restored = Ema(linear(), 0.9)
    restored.load({name: tensor.clone() for name, tensor in ema.tensors.items()}, ema.updates)
    set_to(model, 7.0)
    for average in (ema, restored):
        average.update(model)
    assert restored.updates == ema.updates
    assert all(torch.equal(restored.tensors[name], ema.tensors[name]) for name in ema.tensors)
