"""A tiny run that the tests of all verbs share, and a way to call the command line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from hvae.cli.main import app
from hvae.data import DataConfig, ImageSource, open_source

CONFIG = """\
# Two groups: seconds on any machine.
data:
  source: {source}
  batch: 50
model:
  encoder: 14x1,14d2,7x1
  decoder: 7x1,14m7
  patch: 2
  width: 8
  widths: {{7: 12}}
  z_channels: 2
  likelihood: {{mixtures: 2}}
train:
  images: 200
  precision: fp32
"""

Cli = Callable[..., Result]


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Calls the command line; exceptions that would be a traceback fail the test."""
    return call


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration on the first images of fashion-mini."""
    folder = tmp_path_factory.mktemp("config")
    images = {
        f"{split}_images": stack(open_source(DataConfig(source="fashion-mini"), split), count)
        for split, count in (("train", 200), ("test", 60))
    }
    np.savez(folder / "few-clothes.npz", **images)
    file = folder / "tiny_run.yaml"
    file.write_text(CONFIG.format(source=folder / "few-clothes.npz"))
    return file


@pytest.fixture(scope="session")
def conditional_run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run that is told the class of each image."""
    runs = tmp_path_factory.mktemp("conditional")
    settings = ("data.source=fashion-mini", "train.lr=2e-2", "train.ema=0", "name=classes")
    images = ("train.images=500", "train.warmup_images=0", "model.condition.kind=class")
    result = call("train", config, f"runs_dir={runs}", *settings, *images)
    assert result.exit_code == 0, result.stderr
    return runs / "classes"


def stack(source: ImageSource, count: int) -> NDArray[np.uint8]:
    return np.stack([source[i].numpy() for i in range(count)])


@pytest.fixture(scope="session")
def trained(config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The folder of a finished run, and what `hvae train` printed."""
    runs = tmp_path_factory.mktemp("runs")
    result = call("train", config, f"runs_dir={runs}", "train.lr=2e-3")
    assert result.exit_code == 0, result.stderr
    return runs / "tiny-run", result


@pytest.fixture(scope="session")
def run(trained: tuple[Path, Result]) -> Path:
    return trained[0]
