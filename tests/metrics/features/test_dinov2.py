"""The DINOv2 extractor on a tiny random model; what needs no transformers is tested without."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics.features import in_chunks, open_extractor
from hvae.metrics.features.dinov2 import open_dinov2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers, written by transformers as the published one is."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=70, patch_size=14
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "dinov2-large"
    transformers.Dinov2Model(config).save_pretrained(folder)
    return folder


def images(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, 30, 40), dtype=torch.uint8, generator=generator)


def test_features_are_the_class_token(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    extractor = open_dinov2(weights=folder)
    assert (extractor.name, extractor.dim) == ("dinov2", 48)
    assert (extractor.frechet_name, extractor.kernel_name) == ("FD-DINOv2-48", "KD-DINOv2-48")
    x = images(3)
    model = transformers.Dinov2Model.from_pretrained(folder).eval()
    pixels = torch.nn.functional.interpolate(x.float(), (224, 224), mode="bicubic", antialias=True)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        expected = model(pixel_values=(pixels.clamp(0, 255) / 255 - mean) / std).pooler_output
    assert torch.allclose(extractor(x), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_features_are_the_same_bit_for_bit_in_every_batch_size(folder: Path, batch: int) -> None:
    extractor, x = open_dinov2(weights=folder), images(40)
    parts = [in_chunks(extractor, x[i : i + batch], i) for i in range(0, 40, batch)]
    assert torch.equal(torch.cat(parts), in_chunks(extractor, x))


def test_the_folder_is_searched_for(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = open_extractor("dinov2", weights=folder)
    assert open_extractor("dinov2", weights=folder.parent).sha256 == given.sha256
    cache.mkdir(parents=True)
    (cache / "dinov2-large").symlink_to(folder)
    assert open_extractor("dinov2").sha256 == given.sha256


def test_loading_says_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    open_dinov2(weights=folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fault", ["missing", "unexpected", "mismatched"])
def test_a_model_that_is_not_whole_is_refused(folder: Path, tmp_path: Path, fault: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    if fault == "missing":
        del tensors["layernorm.weight"]
    elif fault == "unexpected":
        tensors["head.weight"] = torch.zeros(2)
    else:
        tensors["layernorm.weight"] = torch.zeros(47)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(UserError) as caught:
        open_dinov2(weights=tmp_path)
    assert "\n" not in str(caught.value)
    assert "DINOv2 model: " in str(caught.value)


def test_a_missing_folder_is_told_with_the_address_and_the_place(cache: Path) -> None:
    with pytest.raises(UserError) as caught:
        open_extractor("dinov2", download=True)
    message = str(caught.value)
    for part in ("model.safetensors", "huggingface.co/facebook/dinov2-large", str(cache)):
        assert part in message


@pytest.mark.parametrize("content", [[], ["config.json"]])
def test_a_folder_without_both_files_is_refused(tmp_path: Path, content: list[str]) -> None:
    folder = tmp_path / "dinov2-large"
    folder.mkdir()
    for name in content:
        (folder / name).write_text("{}")
    for given in (folder, tmp_path):
        with pytest.raises(UserError, match="dinov2-large"):
            open_dinov2(weights=given)


def test_a_missing_package_is_told_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r'transformers.*pip install "hvae\[dinov2\]"'):
        open_dinov2(weights=tmp_path)


@pytest.mark.parametrize("protocol", ["legacy-tf", "legacy-pytorch"])
def test_there_is_one_protocol(protocol: str) -> None:
    with pytest.raises(UserError, match="protocol with dinov2: wanted one of clean, got"):
        open_extractor("dinov2", protocol=protocol)
