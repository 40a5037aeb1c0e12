"""Extractors of the user's own, and names that are none."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.metrics.features import in_chunks, open_extractor

SOURCE = """
import torch

class Means:
    dim = 3

    def __call__(self, images):
        assert not torch.is_grad_enabled()
        return images.float().mean((2, 3))

class Net(torch.nn.Module):
    dim = 2
    protocols = ("clean", "own")

    def __init__(self, protocol):
        super().__init__()
        torch.manual_seed(0)
        self.protocol = protocol
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, images):
        assert not self.training
        return self.layer(images.float().mean((2, 3)))

class Hashed(Means):
    sha256 = "c0ffee"

class Half(Means):
    def __call__(self, images):
        return super().__call__(images).half()

class Wide(Means):
    dim = 4

class Text(Means):
    def __call__(self, images):
        return "features"

class NoDim:
    def __call__(self, images):
        return images

class NoCall:
    dim = 3

class BadHash(Means):
    sha256 = 7

class Broken(Means):
    def __init__(self):
        raise RuntimeError("no weights here\\nand more")

function = len
"""

KNOWN = "inception, lite0, lite2, dinov2"


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with modules of the user's, which is the working directory."""
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    (tmp_path / "wrong.py").write_text("def (:")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in ("mine", "broken", "wrong"):
        sys.modules.pop(name, None)


def images(count: int = 5, channels: int = 3) -> Tensor:
    return torch.randint(256, (count, channels, 6, 7), dtype=torch.uint8)


def test_a_class_in_the_working_directory_is_used() -> None:
    means, x = open_extractor("mine:Means"), images()
    assert (means.name, means.dim, means.protocol) == ("mine:Means", 3, "own")
    assert (means.frechet_name, means.kernel_name) == ("FD-mine:Means", "KD-mine:Means")
    assert torch.equal(means(x), x.float().mean((2, 3)))
    assert torch.equal(in_chunks(means, x, 3), means(x))
    grey = images(channels=1)
    assert torch.equal(means(grey), grey.float().mean((2, 3)).expand(-1, 3))


def test_a_class_is_made_with_the_protocol_asked_for() -> None:
    assert open_extractor("mine:Net").protocol == "clean"
    net = open_extractor("mine:Net", protocol="own")
    assert net.protocol == "own"
    assert net(images()).shape == (5, 2)
    with pytest.raises(UserError, match="protocol with mine:Net: wanted one of clean, own, got"):
        open_extractor("mine:Net", protocol="legacy-tf")
    with pytest.raises(UserError, match="protocol with mine:Means: wanted one of own, got 'clean'"):
        open_extractor("mine:Means", protocol="clean")


def test_the_hash_is_its_own_or_covers_source_and_tensors(working_directory: Path) -> None:
    assert open_extractor("mine:Hashed").sha256 == "c0ffee"
    before = [open_extractor(f"mine:{name}").sha256 for name in ("Means", "Net")]
    assert [open_extractor(f"mine:{name}").sha256 for name in ("Means", "Net")] == before
    assert before[0] != before[1]
    with (working_directory / "mine.py").open("a") as stream:
        stream.write("# another line\n")
    assert open_extractor("mine:Means").sha256 != before[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:Class", "nowhere:Class: no module nowhere here or installed"),
        ("no.where:Class", "no.where:Class: no module no here or installed"),
        ("mine:Nobody", "mine:Nobody: mine has no class Nobody"),
        ("mine:function", "mine:function: mine has no class function"),
        ("mine:", "features: wanted module:Class, got 'mine:'"),
        (":Means", "features: wanted module:Class, got ':Means'"),
        ("broken:X", "broken:X: importing it failed: ModuleNotFoundError: No module named 'noth"),
        ("wrong:X", "wrong:X: importing it failed: SyntaxError: "),
        ("mine:NoDim", "mine:NoDim: wanted an attribute dim, a positive integer, got None"),
        ("mine:NoCall", "mine:NoCall: wanted a method __call__, and there is none"),
        ("mine:Broken", "mine:Broken: cannot be constructed: RuntimeError: no weights here"),
        ("mine:BadHash", "mine:BadHash: wanted sha256 to be a text, got 7"),
        ("fid", f"features: wanted {KNOWN} or module:Class, got 'fid'"),
        ("lite0@", f"features: wanted {KNOWN} or module:Class, got 'lite0@'"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        open_extractor(name)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Half", "mine:Half: wanted features float32 (5, 3), got float16 (5, 3)"),
        ("Wide", "mine:Wide: wanted features float32 (5, 4), got float32 (5, 3)"),
        ("Text", "mine:Text: wanted a tensor, got a str"),
    ],
)
def test_features_of_another_form_are_refused(name: str, message: str) -> None:
    extractor = open_extractor(f"mine:{name}")
    with pytest.raises(UserError) as caught:
        extractor(images())
    assert str(caught.value) == message


def test_weights_are_the_class_s_own_business(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mine:Means brings its own weights"):
        open_extractor("mine:Means", weights=tmp_path)
