"""The FID extractor: its weights file and copy, its scaling, its chunks. Layers: tests/golden."""

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hvae.errors import UserError
from hvae.metrics.features import in_chunks, open_extractor
from hvae.metrics.features.base import NetworkExtractor
from hvae.metrics.features.inception import INCEPTION, load_weights, open_inception
from hvae.metrics.features.inception_network import Conv
from hvae.metrics.features.weights import WeightsFile, file_sha256
from tests.golden.inception_table import random_weights, reference_layers

COPY = "weights-inception-2015-12-05-6726825d.safetensors"


def with_counters(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    means = [name for name in weights if name.endswith("running_mean")]
    counters = {name.replace("running_mean", "num_batches_tracked") for name in means}
    return weights | dict.fromkeys(counters, torch.tensor(0))


def publish(weights: dict[str, Tensor], path: Path) -> WeightsFile:
    """Writes weights as the real ones are, which are no zip archive, and returns their record."""
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    size = path.stat().st_size
    return dataclasses.replace(INCEPTION, sha256=file_sha256(path), num_bytes=size)


WEIGHTS = {
    "conv.weight": torch.arange(24.0).view(8, 3, 1, 1),
    "bn.weight": torch.arange(8.0),
    "bn.bias": torch.arange(8.0) + 1,
    "bn.running_mean": torch.arange(8.0) + 2,
    "bn.running_var": torch.arange(8.0) + 3,
}


@pytest.fixture
def network() -> Conv:
    """One convolution stands for the network, which is 100 MB."""
    return Conv(3, 8, 1)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    (tmp_path / "published").mkdir()
    return tmp_path / "published" / INCEPTION.name


@pytest.fixture(params=["with counters", "without"])
def file(published: Path, request: pytest.FixtureRequest) -> WeightsFile:
    weights = with_counters(WEIGHTS) if request.param == "with counters" else WEIGHTS
    return publish(weights, published)


def assert_loaded(network: nn.Module) -> None:
    for name, expected in WEIGHTS.items():
        assert torch.equal(network.state_dict()[name], expected), name


def test_the_published_file_is_read_once_and_its_copy_after_that(
    network: Conv, published: Path, file: WeightsFile, cache: Path
) -> None:
    load_weights(network, file, published.parent)
    assert_loaded(network)
    assert load_file(cache / COPY).keys() == WEIGHTS.keys()
    assert not list(cache.glob("*.tmp"))
    published.unlink()
    network.bn.bias.data.zero_()
    load_weights(network, file)  # nothing is given now: the copy in the cache
    assert_loaded(network)


def test_a_copy_that_changed_or_has_another_origin_is_refused(
    network: Conv, published: Path, file: WeightsFile, cache: Path
) -> None:
    load_weights(network, file, published)
    raw = bytearray((cache / COPY).read_bytes())
    raw[-10] ^= 1
    (cache / COPY).write_bytes(raw)
    with pytest.raises(UserError, match=rf"{COPY}: changed since it was made: .*remove the file"):
        load_weights(network, file)
    (cache / COPY).write_bytes(raw[:500])
    with pytest.raises(UserError, match=rf"{COPY}: cannot be read"):
        load_weights(network, file)
    save_file({"a": torch.zeros(1)}, cache / COPY)
    with pytest.raises(UserError, match=f"wanted origin sha256 {file.sha256}, got None"):
        load_weights(network, file)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to every folder")
def test_a_folder_that_cannot_be_written_to_does_without_a_copy(
    network: Conv, published: Path, file: WeightsFile, cache: Path
) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o500)
    load_weights(network, file, published)
    assert_loaded(network)
    assert not list(cache.iterdir())


def test_a_cache_that_cannot_be_made_does_without_a_copy(
    network: Conv, published: Path, file: WeightsFile, cache: Path
) -> None:
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where the folder should be")
    load_weights(network, file, published)
    assert_loaded(network)


def test_a_full_disk_leaves_no_half_of_a_copy(
    network: Conv,
    published: Path,
    file: WeightsFile,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hvae.files.sync", full)
    load_weights(network, file, published)
    assert_loaded(network)
    assert [entry.name for entry in cache.iterdir()] == [f".{COPY}.lock"]


def test_a_wrong_hash_is_refused_naming_both(
    published: Path, file: WeightsFile, cache: Path
) -> None:
    with pytest.raises(UserError) as caught:
        open_extractor("inception", weights=published)
    assert INCEPTION.sha256 in str(caught.value)
    assert file.sha256 in str(caught.value)
    assert not cache.exists()


def test_missing_weights_are_told_with_the_address_and_the_hash(cache: Path) -> None:
    with pytest.raises(UserError) as caught:
        open_extractor("inception")
    message = str(caught.value)
    for part in (INCEPTION.name, INCEPTION.url, INCEPTION.sha256, str(cache), "--download"):
        assert part in message


def test_the_file_of_pytorch_fid_is_the_same_file(
    network: Conv, published: Path, file: WeightsFile, tmp_path: Path
) -> None:
    os.link(published, tmp_path / "pt_inception-2015-12-05-6726825d.pth")
    load_weights(network, file, tmp_path)
    assert_loaded(network)


def test_other_networks_are_refused_by_key(
    network: Conv, file: WeightsFile, tmp_path: Path
) -> None:
    weights = dict(WEIGHTS, **{"bn.weight": torch.zeros(9)})
    weights["AuxLogits.fc.weight"] = weights.pop("bn.bias")
    path = tmp_path / "torchvision.pth"
    other = publish(weights, path)
    with pytest.raises(UserError) as caught:
        load_weights(network, other, path)
    assert "1 missing (bn.bias); 1 unknown (AuxLogits.fc.weight)" in str(caught.value)
    assert "1 of another shape (bn.weight (9,) for (8,))" in str(caught.value)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> NetworkExtractor:
    """The whole extractor, opened from a file of random weights of the real names and sizes."""
    folder = tmp_path_factory.mktemp("inception")
    path = folder / INCEPTION.name
    file = publish(with_counters(random_weights()), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        opened = open_inception("clean", path, file=file)
    shutil.rmtree(folder)  # 200 MB
    return opened


def images(count: int, size: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def test_the_extractor_says_what_it_is(clean: NetworkExtractor) -> None:
    assert (clean.name, clean.dim, clean.protocol) == ("inception", 2048, "clean")
    assert (clean.frechet_name, clean.kernel_name, clean.chunk) == ("FID", "KID", 32)


def test_features_are_those_of_the_second_port(clean: NetworkExtractor) -> None:
    x = images(1, 299)
    expected = reference_layers(random_weights(), (x.float() - 128) / 128)["pool3"]
    found = clean(x)
    assert (found - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize(
    ("protocol", "black", "white"),
    [("clean", -1, 127 / 128), ("legacy-tf", -1, 127 / 128), ("legacy-pytorch", -1, 1)],
)
def test_the_input_is_scaled_as_the_protocol_has_it(
    monkeypatch: pytest.MonkeyPatch, protocol: str, black: float, white: float
) -> None:
    monkeypatch.setattr("hvae.metrics.features.inception._read", lambda *_, **__: ())
    monkeypatch.setattr("hvae.metrics.features.inception._fill", lambda *_: None)
    extractor = open_inception(protocol)
    seen: list[Tensor] = []
    monkeypatch.setattr(extractor.network, "forward", lambda x: seen.append(x) or x.mean((2, 3)))
    extractor(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
    (x,) = seen
    assert x.shape == (2, 3, 299, 299)
    expected = torch.tensor([black, white], dtype=torch.float32).view(2, 1, 1, 1).expand_as(x)
    assert torch.allclose(x, expected, rtol=0, atol=1e-6)
    assert extractor.protocol == protocol


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(UserError, match="protocol with inception: wanted one of clean, legacy-"):
        open_inception("antialias")


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_features_are_the_same_bit_for_bit_in_every_batch_size(
    clean: NetworkExtractor, batch: int
) -> None:
    small = dataclasses.replace(clean, resolution=75, chunk=4)
    x = images(10)
    whole = in_chunks(small, x)
    parts = [in_chunks(small, x[i : i + batch], i) for i in range(0, 10, batch)]
    assert torch.equal(torch.cat(parts), whole)
    assert whole.std() > 0


@pytest.mark.slow
def test_features_are_the_same_bit_for_bit_at_full_size(clean: NetworkExtractor) -> None:
    small, x = dataclasses.replace(clean, chunk=4), images(8)
    parts = [in_chunks(small, x[i : i + 3], i) for i in range(0, 8, 3)]
    assert torch.equal(torch.cat(parts), in_chunks(small, x))
