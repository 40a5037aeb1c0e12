"""The sheets of a run."""

import numpy as np
import pytest
from PIL import Image

from hvae.data import DataConfig, open_source
from hvae.models import HVAE, ModelConfig
from hvae.training.sheets import write_sheets


@pytest.mark.parametrize("channels", [1, 3])
def test_sheets_show_samples_and_pairs(tmp_path, channels):
    config = ModelConfig(size=(8, 8), channels=channels, encoder="8x1", decoder="8x1", width=8)
    model = HVAE(config).eval()
    test = open_source(DataConfig(source="shapes", size=8, channels=channels), "test")
    write_sheets(model, test, tmp_path, "0001", seed=3)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"samples-0001.png", "reconstructions-0001.png"}

    with Image.open(tmp_path / "reconstructions-0001.png") as sheet:
        pixels = np.asarray(sheet)
    original = test[0].movedim(0, -1).numpy()
    rows, columns = pixels.shape[:2]
    found = [
        (y, x)
        for y in range(rows - 7)
        for x in range(columns - 7)
        if np.array_equal(pixels[y : y + 8, x : x + 8].reshape(8, 8, channels), original)
    ]
    assert found
    assert found[0][0] < 8
    assert found[0][1] < 8


def test_equal_seeds_show_equal_samples(tmp_path):
    config = ModelConfig(size=(8, 8), channels=1, encoder="8x1", decoder="8x1", width=8)
    model = HVAE(config).eval()
    test = open_source(DataConfig(source="shapes", size=8, channels=1), "test")
    for stem in ("a", "b"):
        write_sheets(model, test, tmp_path, stem, seed=3)
    for kind in ("samples", "reconstructions"):
        first, second = ((tmp_path / f"{kind}-{stem}.png").read_bytes() for stem in "ab")
        assert first == second
