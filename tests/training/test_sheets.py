"""The sheets of a run."""

import numpy as np
import pytest
from PIL import Image

from hvae.data import DataConfig, open_source
from hvae.data.grid import GAP
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


def cells(sheet: Image.Image, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a sheet of such images."""
    return (sheet.height + GAP) // (height + GAP), (sheet.width + GAP) // (width + GAP)


@pytest.mark.parametrize(("height", "width", "sides"), [(2048, 8, (2, 8)), (8, 700, (8, 4))])
def test_sheets_of_large_images_have_fewer_of_them(tmp_path, height, width, sides):
    config = ModelConfig(size=(height, width), channels=1, encoder=f"{min(height, width)}x1",
                         decoder=f"{min(height, width)}x1", width=4, no_bias_above=0)  # fmt: skip
    test = open_source(DataConfig(source="shapes", size=(height, width), channels=1), "test")
    files = write_sheets(HVAE(config).eval(), test, tmp_path, "a", seed=3)
    for name in ("samples", "reconstructions"):
        with Image.open(files[name]) as sheet:
            assert cells(sheet, height, width) == sides


def test_few_samples_may_be_asked_for(tmp_path):
    config = ModelConfig(size=(8, 8), channels=1, encoder="8x1", decoder="8x1", width=8)
    test = open_source(DataConfig(source="shapes", size=8, channels=1), "test")
    files = write_sheets(HVAE(config).eval(), test, tmp_path, "a", seed=3, samples=2)
    with Image.open(files["samples"]) as sheet:
        assert cells(sheet, 8, 8) == (1, 2)
