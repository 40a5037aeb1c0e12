"""The Inception network's layers, on seeded weights, are those on file and those of a second port.

    python -m pytest tests/golden --update-golden

writes the file anew, from the second port.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hvae.metrics.features.inception_network import (
    CLASSES,
    FEATURES,
    RESOLUTION,
    InceptionNetwork,
    average_pool,
    max_pool,
)
from tests.golden import inception_table as reference

FILE = Path(__file__).with_name("inception.json")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return reference.random_weights()


@pytest.fixture(scope="module")
def network(weights: dict[str, Tensor]) -> InceptionNetwork:
    network = InceptionNetwork().eval().requires_grad_(False)
    report = network.load_state_dict(weights, strict=False)
    assert not report.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in report.missing_keys)
    return network


def image(resolution: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.rand(1, 3, resolution, resolution, generator=generator) - 1


def layers(network: InceptionNetwork, x: Tensor) -> dict[str, Tensor]:
    """The output of each layer by name."""
    found: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, y, name=name: found.update({name: y.clone()}))
        for name, module in network.named_children()
        if name != "fc"
    ]
    found["pool3"] = network(x)
    found["logits"] = network.fc(found["pool3"])
    for hook in hooks:
        hook.remove()
    return found


def checksums(found: dict[str, Tensor]) -> dict[str, Any]:
    """Shape and sums of each layer, float64; the weighted sum sees an order the others do not."""
    return {name: _checksums(y) for name, y in found.items()}


def _checksums(y: Tensor) -> dict[str, Any]:
    values = y.double().flatten()
    ramp = torch.linspace(0, 1, len(values), dtype=torch.float64)
    return {
        "shape": list(y.shape),
        "sum": values.sum().item(),
        "square_sum": values.square().sum().item(),
        "weighted_sum": (values * ramp).sum().item(),
    }


@pytest.fixture(scope="module")
def golden(request: pytest.FixtureRequest, weights: dict[str, Tensor]) -> dict[str, Any]:
    """The checksums on file; written first if asked."""
    if request.config.getoption("--update-golden", default=False):
        found = checksums(reference.reference_layers(weights, image(RESOLUTION)))
        lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(v)}" for name, v in found.items())
        FILE.write_text(f"{{\n{lines}\n}}\n")
    return json.loads(FILE.read_text())


def test_layers_are_those_on_file(network: InceptionNetwork, golden: dict[str, Any]) -> None:
    found = checksums(layers(network, image(RESOLUTION)))
    assert list(found) == list(golden)
    assert len(found) == 18
    for name, layer in found.items():
        assert layer.pop("shape") == golden[name].pop("shape"), name
        assert layer == pytest.approx(golden[name], rel=1e-4), name


def test_layers_are_those_of_the_second_port(
    network: InceptionNetwork, weights: dict[str, Tensor]
) -> None:
    x = image(139)
    expected = reference.reference_layers(weights, x)
    for name, y in layers(network, x).items():
        error = (y - expected[name]).norm() / expected[name].norm()
        assert error < 1e-5, name


def test_keys_and_shapes_are_those_published(network: InceptionNetwork) -> None:
    found = {
        name: tuple(tensor.shape)
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert found == reference.shapes()
    assert len(found) == 5 * 94 + 2


def test_there_are_as_many_parameters_as_published() -> None:
    """Of 23,834,568 with 1000 classes, as published for the network without auxiliary classifier.

    The statistics of 17,216 normalised channels come on top; 4 bytes each are 99.9 % of the
    95,628,359 of the published file.
    """
    with torch.device("meta"):
        network = InceptionNetwork()
    trained = sum(parameter.numel() for parameter in network.parameters())
    assert trained == 23_834_568 + (CLASSES - 1000) * (FEATURES + 1)
    stored = trained + 2 * 17_216
    assert stored == sum(torch.Size(shape).numel() for shape in reference.shapes().values())
    assert 0 < 95_628_359 - 4 * stored < 100_000


def test_average_pooling_counts_pixels_inside_only() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert average_pool(x).flatten().tolist() == [3.0] * 4
    row = torch.tensor([[[[1.0, 2.0, 6.0]]]])
    assert average_pool(row).flatten().tolist() == [1.5, 3.0, 4.0]


def test_maximum_pooling_keeps_the_resolution() -> None:
    row = torch.tensor([[[[-5.0, -7.0, -1.0, -9.0]]]])
    assert max_pool(row).flatten().tolist() == [-5.0, -1.0, -1.0, -1.0]


def test_only_the_last_block_pools_by_maximum(network: InceptionNetwork) -> None:
    assert network.Mixed_7b.pool is average_pool
    assert network.Mixed_7c.pool is max_pool


@pytest.mark.parametrize("block", ["Mixed_5b", "Mixed_6b", "Mixed_7b", "Mixed_7c"])
def test_the_poolings_reach_the_output(network: InceptionNetwork, block: str) -> None:
    """A single bright pixel in the corner comes out of the pooling branch as each quirk has it."""
    module = getattr(network, block)
    inputs = module.branch1x1.conv.in_channels
    x = torch.zeros(1, inputs, 4, 4)
    x[..., 0, 0] = 1
    pooled = torch.zeros(1, inputs, 4, 4)
    if block == "Mixed_7c":
        pooled[..., :2, :2] = 1
    else:
        pooled[..., :2, :2] = torch.tensor([[1 / 4, 1 / 6], [1 / 6, 1 / 9]])
    outputs = module.branch_pool.conv.out_channels
    found, expected = module(x)[:, -outputs:], module.branch_pool(pooled)
    assert expected.std() > 0
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)
