"""Maps of a trained network: one of each resolution, whatever its modules are called with."""

import pytest
import torch
from torch import nn

from hvae.errors import UserError
from hvae.nn.feature_maps import FeatureMaps

MEAN, STD = (120.0, 110.0, 100.0), (60.0, 61.0, 62.0)


class Shared(nn.Module):
    """One activation for all, and padding before a convolution, as EfficientNet-Lite has."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.activation = nn.ReLU()
        self.first = nn.Conv2d(3, 4, 1)
        self.pad = nn.ZeroPad2d(1)
        self.second = nn.Conv2d(4, 6, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation(self.first(x))
        x = self.activation(self.second(self.pad(x)))
        return x.mean((2, 3))


def maps_of(network: nn.Module, resolution: int = 8) -> FeatureMaps:
    return FeatureMaps(network.requires_grad_(False), resolution, MEAN, STD)


def test_the_last_map_of_each_resolution_is_taken() -> None:
    network = Shared()
    maps, images = maps_of(network), torch.rand(2, 3, 8, 8) * 2 - 1
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    first = network.activation(network.first((127.5 * (images + 1) - mean) / std))
    second = network.activation(network.second(network.pad(first)))
    assert maps.channels == [4, 6]
    for found, wanted in zip(maps(images), (first, second), strict=True):
        wanted = wanted / (wanted.square().mean(1, keepdim=True) + 1e-10).sqrt()
        torch.testing.assert_close(found, wanted)


def test_grey_images_of_any_size_have_a_gradient() -> None:
    images = torch.rand(2, 1, 12, 9, requires_grad=True)
    found = maps_of(Shared())(images)
    assert [each.shape for each in found] == [(2, 4, 8, 8), (2, 6, 4, 4)]
    found[-1].sum().backward()
    assert images.grad is not None
    assert images.grad.any()
    assert images.grad.isfinite().all()


def test_networks_without_maps_are_refused() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))
    with pytest.raises(UserError, match="Sequential has none"):
        maps_of(flat)
