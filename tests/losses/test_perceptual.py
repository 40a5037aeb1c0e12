"""Distances in another network's feature maps."""

import torch
from torch import nn

from hvae.losses.perceptual import Perceptual
from hvae.nn.feature_maps import FeatureMaps

MEAN, STD = (120.0, 110.0, 100.0), (60.0, 61.0, 62.0)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True),
        nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    ).requires_grad_(False)  # fmt: skip


def test_equal_images_have_no_distance():
    distance = Perceptual(FeatureMaps(network(), 16, MEAN, STD))
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    assert distance(x, x).item() == 0
    assert distance(x, -x).item() > 0


def test_the_distance_is_that_of_the_formula():
    net, x = network(), torch.rand(2, 2, 3, 16, 16) * 2 - 1
    values = []
    first, second = (
        (127.5 * (images + 1) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        for images in x
    )
    for part in (net[:2], net[:3]):
        a, b = part(first), part(second)
        a, b = (maps / maps.norm(dim=1, keepdim=True).clamp(min=1e-5) for maps in (a, b))
        values.append((a - b).square().sum(1).mean())
    found = Perceptual(FeatureMaps(net, 16, MEAN, STD))(x[0], x[1])
    torch.testing.assert_close(found, torch.stack(values).mean(), rtol=1e-4, atol=1e-6)


def test_grey_images_of_any_size_and_their_gradient():
    distance = Perceptual(FeatureMaps(network(), 16, MEAN, STD))
    made = torch.rand(2, 1, 12, 9, requires_grad=True)
    distance(made, torch.rand(2, 1, 12, 9)).backward()
    assert made.grad is not None
    assert made.grad.any()
    assert made.grad.isfinite().all()


def test_a_flat_image_has_a_finite_gradient():
    dead = network()
    with torch.no_grad():
        dead[0].weight.zero_()
        dead[0].bias.fill_(-1.0)
    made = torch.zeros(1, 3, 16, 16, requires_grad=True)
    Perceptual(FeatureMaps(dead, 16, MEAN, STD))(made, torch.zeros(1, 3, 16, 16)).backward()
    assert made.grad is not None
    assert made.grad.isfinite().all()
