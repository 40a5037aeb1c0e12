"""`hvae data inspect` counts images, sizes and classes, and names damaged files."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.cli.conftest import Cli


def picture(path: Path, height: int, width: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (width, height)).save(path)


def test_an_embedded_set(cli: Cli) -> None:
    record = json.loads(cli("data", "inspect", "fashion-mini", "--json").stdout)
    assert record["images"] == {"train": 10000, "test": 2000}
    assert record["sizes"] == {"28x28": 12000}
    assert record["channels"] == {"1": 12000}
    assert sum(record["classes"].values()) == 12000
    assert {len(sha256) for sha256 in record["sha256"].values()} == {64}


def test_a_folder_of_several_sizes_with_a_damaged_file(cli: Cli, tmp_path: Path) -> None:
    for index in range(4):
        picture(tmp_path / "cats" / f"{index}.png", 8, 6)
    picture(tmp_path / "dogs" / "0.png", 4, 4, "L")
    whole = (tmp_path / "cats" / "0.png").read_bytes()
    (tmp_path / "dogs" / "1.png").write_bytes(whole[:45])
    result = cli("data", "inspect", tmp_path)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "size        8x6 (4), 4x4 (1)" in lines
    assert "channels    3 (4), 1 (1)" in lines
    assert "classes     cats (4), dogs (2)" in lines
    assert "unreadable  1" in lines
    assert lines[-1].startswith(f"cannot read the image {tmp_path / 'dogs' / '1.png'}")
    record = json.loads(cli("data", "inspect", tmp_path, "--json").stdout)
    assert record["sha256"] is None
    assert len(record["unreadable"]) == 1


def test_a_uniform_folder_has_an_identity(cli: Cli, tmp_path: Path) -> None:
    for index in range(3):
        picture(tmp_path / f"{index}.png", 5, 5)
    record = json.loads(cli("data", "inspect", f"folder:{tmp_path}", "--json").stdout)
    assert sum(record["images"].values()) == 3
    assert record["classes"] is None
    assert record["sha256"].keys() == {"train", "test"}


def test_an_array_file(cli: Cli, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((40, 6, 6, 3), np.uint8))
    record = json.loads(cli("data", "inspect", tmp_path / "images.npy", "--json").stdout)
    assert record["sizes"] == {"6x6": 40}


def test_long_lists_are_cut_for_people_only(cli: Cli, tmp_path: Path) -> None:
    for size in range(1, 15):
        picture(tmp_path / f"{size}.png", size, size)
    assert "and 4 more" in cli("data", "inspect", tmp_path).stdout
    assert len(json.loads(cli("data", "inspect", tmp_path, "--json").stdout)["sizes"]) == 14


def test_a_word_that_names_nothing_is_answered_with_a_near_one(cli: Cli) -> None:
    result = cli("data", "inspect", "fashon-mini")
    assert result.exit_code == 2
    assert "did you mean fashion-mini?" in result.stderr
