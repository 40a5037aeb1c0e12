"""Features do not depend on batches, layouts or the caller's settings."""

import pytest
import torch
from torch import Tensor, nn

from hvae.metrics.features import in_chunks
from hvae.metrics.features.base import NetworkExtractor, exact_float32

CPU = torch.device("cpu")


class Recorder(nn.Module):
    """Convolutions of which the first one is 7 x 7, where batch sizes show in the last bits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 7, stride=2), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.Flatten(2)
        )
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.inputs.append(x)
        return self.layers(x).mean(2)


def extractor(chunk: int = 8) -> NetworkExtractor:
    torch.manual_seed(0)
    return NetworkExtractor(
        name="test", dim=24, sha256="", protocol="clean", frechet_name="FD-test",
        kernel_name="KD-test", network=Recorder(), resolution=32, mean=(127.5, 100.0, 0.0),
        std=(127.5, 50.0, 255.0), device=CPU, chunk=chunk,
    )  # fmt: skip


def images(count: int, size: int = 20, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, channels, size, size)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


def in_batches(network: NetworkExtractor, x: Tensor, batch: int, first_index: int = 0) -> Tensor:
    starts = range(0, len(x), batch)
    return torch.cat([in_chunks(network, x[i : i + batch], first_index + i) for i in starts])


@pytest.mark.parametrize("batch", [1, 7, 8, 64])
def test_features_are_the_same_bit_for_bit_in_every_batch_size(batch: int) -> None:
    network, x = extractor(), images(30)
    whole = in_chunks(network, x)
    assert whole.shape == (30, 24)
    assert whole.dtype == torch.float32
    assert torch.equal(in_batches(network, x, batch), whole)


def test_features_are_the_same_from_any_index_on() -> None:
    network, x = extractor(), images(30)
    whole = in_chunks(network, x)
    for first in (1, 8, 13, 29):
        assert torch.equal(in_chunks(network, x[first:], first), whole[first:])


def test_every_pass_is_full_and_rows_take_the_place_of_their_index() -> None:
    network, x = extractor(), images(11)
    in_chunks(network, x, first_index=5)
    passes = network.network.inputs
    assert [len(inputs) for inputs in passes] == [8, 8]
    alone = extractor()
    alone(x)
    rows = torch.cat(passes)[5:]
    assert torch.equal(rows, alone.network.inputs[0])
    black = passes[0][:5]
    assert torch.equal(black, black[:1].expand_as(black))


def test_whole_chunks_are_not_copied_or_padded() -> None:
    network, x = extractor(), images(16)
    found = in_chunks(network, x)
    assert len(network.network.inputs) == 2
    assert torch.equal(found, torch.cat([network(x[:8]), network(x[8:])]))


def test_no_images_give_no_features() -> None:
    network = extractor()
    assert in_chunks(network, images(0)).shape == (0, 24)
    assert not network.network.inputs


def test_channels_last_images_and_grey_ones_give_the_same_features() -> None:
    network = extractor()
    x = images(8)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(in_chunks(network, last), in_chunks(network, x))
    grey = images(8, channels=1)
    assert torch.equal(in_chunks(network, grey), in_chunks(network, grey.repeat(1, 3, 1, 1)))


def test_the_input_is_scaled_by_channel() -> None:
    network = extractor()
    network(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8))
    (found,) = network.network.inputs
    assert found[0, :, 0, 0].tolist() == pytest.approx([1.0, 3.1, 1.0])


def test_a_network_is_frozen_and_no_graph_is_kept() -> None:
    network = extractor()
    assert not network.network.training
    assert not any(p.requires_grad for p in network.network.parameters())
    assert not network(images(1)).requires_grad


@pytest.mark.parametrize(("index", "shape"), [(-1, (1, 3, 8, 8)), (0, (3, 8, 8))])
def test_a_negative_index_and_other_shapes_are_refused(index: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"first_index must be|images must be"):
        in_chunks(extractor(), torch.zeros(shape, dtype=torch.uint8), index)


def test_autocast_of_a_caller_does_not_reach_the_network() -> None:
    network, x = extractor(), images(3)
    expected = network(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(x)
    assert torch.equal(found, expected)


def test_precision_settings_are_exact_inside_and_restored_after_an_error() -> None:
    backends = torch.backends
    owners = [
        backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv
    ]  # fmt: skip
    before = [owner.fp32_precision for owner in owners]
    backends.cuda.matmul.fp32_precision = "tf32"
    try:
        with exact_float32(CPU):
            assert [owner.fp32_precision for owner in owners] == ["ieee"] * 4
            assert (backends.cudnn.benchmark, backends.cudnn.deterministic) == (False, True)
        with pytest.raises(ZeroDivisionError), exact_float32(CPU):
            _ = 1 / 0
        assert [owner.fp32_precision for owner in owners] == ["tf32", *before[1:]]
        assert not backends.cudnn.deterministic
    finally:
        backends.cuda.matmul.fp32_precision = before[0]


@pytest.mark.gpu
def test_features_on_a_gpu_are_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    cpu, x = extractor(), images(30)
    fields = {**vars(cpu), "network": Recorder(), "device": torch.device("cuda")}
    fields["network"].load_state_dict(cpu.network.state_dict())
    gpu = NetworkExtractor(**fields)
    found = in_chunks(gpu, x)
    assert found.device.type == "cuda"
    assert torch.equal(in_batches(gpu, x, 7), found)
    assert torch.allclose(found.cpu(), in_chunks(cpu, x), rtol=1e-5, atol=1e-5)
