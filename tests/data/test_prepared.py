"""Opening prepared folders: by their manifest, mapped, and never trusting what it says."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvae.data import DataConfig, open_source
from hvae.data.manifest import read_manifest
from hvae.data.prepare import prepare
from hvae.data.prepared import changed_files, open_prepared
from hvae.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    for number in range(30):
        Image.new("L", (4, 4), 8 * number).save(tmp_path / "set" / f"{number}.png")
    prepare(DataConfig(source=str(tmp_path / "set")), tmp_path / "p", workers=0)
    return tmp_path / "p"


def test_pixels_stay_on_disk(folder: Path) -> None:
    source = open_prepared(folder, "train")
    assert all(isinstance(shard, np.memmap) for shard in source._images._shards)
    assert source.shape == (1, 4, 4)


@pytest.mark.parametrize("word", ["{}", "prepared:{}"])
def test_data_words(folder: Path, word: str) -> None:
    counts = [
        len(open_source(DataConfig(source=word.format(folder)), split))
        for split in ("train", "test")
    ]
    assert sum(counts) == 30


def test_a_folder_without_a_manifest_is_no_prepared_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*prepared\.json: No such file"):
        open_source(DataConfig(source=f"prepared:{tmp_path}"), "train")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "Invalid JSON"),
        ("[]", "Input should be"),
        ("{}", "plan: Field required"),
        ('{"plan": {"version": 2}}', r"plan\.version: Input should be 1"),
        ('{"shards": "\\ud800"}', "is no manifest"),
        ("[" * 100_000, "is no manifest"),
    ],
)
def test_hostile_manifests_are_named(folder: Path, text: str, complaint: str) -> None:
    (folder / "prepared.json").write_text(text)
    with pytest.raises(UserError, match=complaint) as caught:
        open_prepared(folder, "train")
    assert str(folder / "prepared.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": {"train": 10**12, "test": 10**12}},
        {"rows": {"train": -5, "test": 35}},
        {"rows": {"train": 30}},
        {"shape": [1, 4, 10**9]},
        {"shape": [1, -4, -4]},
        {"rows_per_shard": 0},
        {"rows_per_shard": 10},
        {"labels": [1, 2]},
        {"names": ["x"]},
    ],
)
def test_manifests_that_promise_other_than_there_is(folder: Path, change: dict) -> None:
    record = json.loads((folder / "prepared.json").read_text())
    record["plan"] |= change
    (folder / "prepared.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=str(folder)):
        open_prepared(folder, "train")


def test_damaged_shards_are_named(folder: Path) -> None:
    shard = folder / "images-00000.npy"
    whole = shard.read_bytes()
    assert changed_files(folder, read_manifest(folder)) == []
    for damaged in (b"", whole[:-1], whole.replace(b"(30,", b"(31,"), b"text"):
        shard.write_bytes(damaged)
        with pytest.raises(UserError, match=r"images-00000\.npy"):
            open_prepared(folder, "test")
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # opens, and inspect tells
    assert changed_files(folder, read_manifest(folder)) == ["images-00000.npy"]
    shard.unlink()
    with pytest.raises(UserError, match=r"images-00000\.npy"):
        open_prepared(folder, "test")
