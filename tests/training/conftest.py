"""A run of seconds: a small ladder on generated images."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hvae.training import Config, load_config

TINY = """
data: {source: shapes, size: 8, channels: 1, batch: 4}
model:
  encoder: 8x1,8d2,4x1
  decoder: 4x1,8m4
  width: 8
  z_channels: 2
  likelihood: {mixtures: 2}
train:
  images: 30
  lr: 0.01
  warmup_images: 8
  ema: 0.99
  precision: fp32
  log_every: 4
  checkpoint_every: 8
  sample_every: 1000
  eval_every: 12
eval: {images: 8}
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A configuration file of a tiny run, whose run folder is `tmp_path / "tiny"`."""
    file = tmp_path / "tiny.yaml"
    file.write_text(f"runs_dir: {tmp_path}\n{TINY}")
    return file


@pytest.fixture
def tiny(config_file: Path) -> Callable[..., Config]:
    """Reads the configuration of a tiny run with `key=value`s on top."""
    return lambda *overrides: load_config(config_file, overrides)
