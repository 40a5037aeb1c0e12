"""`hvae data inspect` counts images, sizes and classes, and names damaged files."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvae.data.decode import decode
from tests.cli.conftest import Cli
from tests.data.mixed import BAD, CONVERTED, DEAD_LINKS, write_mixed


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
    assert "size         8x6 (4), 4x4 (1)" in lines
    assert "channels     3 (4), 1 (1)" in lines
    assert "classes      cats (4), dogs (2)" in lines
    assert "unreadable   1" in lines
    assert lines[-1].startswith(f"damaged: {tmp_path / 'dogs' / '1.png'}: ")
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


# A run of four steps on colour images.
TRAIN = (
    *("data.size=14", "data.channels=3", "data.batch=10", "train.images=40", "train.log_every=10"),
    *("model.encoder=14x1,14d2,7x1", "model.decoder=7x1,14m7", "model.patch=1", "eval.images=10"),
)


@pytest.mark.parametrize("count", [60, pytest.param(5000, marks=pytest.mark.slow)])
def test_every_problem_of_a_mixed_folder_is_named(cli: Cli, tmp_path: Path, count: int) -> None:
    root = write_mixed(tmp_path / "photos", count)
    record = json.loads(cli("data", "inspect", root, "--json").stdout)
    assert sum(record["images"].values()) == count
    found = {problem["file"]: problem["kind"] for problem in record["unreadable"]}
    assert found == {str(root / name): kind for name, kind in BAD.items()}
    links = {problem["file"]: problem["kind"] for problem in record["links"]}
    assert links == {str(root / name): kind for name, kind in DEAD_LINKS.items()}
    assert record["converted"] == dict.fromkeys(CONVERTED.values(), 1)
    assert record["others"] == {".txt": 2, ".db": 1, "no suffix": 1}
    assert sum(record["sizes"].values()) == sum(record["channels"].values()) == count - len(BAD)
    lines = cli("data", "inspect", root).stdout.splitlines()
    for name, kind in (BAD | DEAD_LINKS).items():
        assert any(line.startswith(f"{kind}: {root / name}: ") for line in lines)


@pytest.mark.parametrize("count", [60, pytest.param(5000, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:skipping")
def test_a_mixed_folder_trains_the_same_prepared_or_not(
    cli: Cli, config: Path, tmp_path: Path, count: int
) -> None:
    root = write_mixed(tmp_path / "photos", count)
    prepared = cli(
        "data", "prepare", root, "-o", tmp_path / "p", "--size", "14", "--channels", "3",
        "--skip-bad", "--workers", "0", "--json",
    )  # fmt: skip
    assert prepared.exit_code == 0, prepared.stderr
    record = json.loads(prepared.stdout)
    assert {entry["name"]: entry["kind"] for entry in record["skipped"]} == BAD
    sources = {
        "files": (f"data.source={root}", "data.skip_bad=true", "data.workers=2"),
        "prepared": (f"data.source={tmp_path / 'p'}",),
    }
    rows = {}
    for name, settings in sources.items():
        result = cli("train", config, *settings, *TRAIN, f"runs_dir={tmp_path}", f"name={name}")
        assert result.exit_code == 0, result.stderr
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        rows[name] = [json.loads(line) for line in lines]
    for one, other in zip(rows["files"], rows["prepared"], strict=True):
        assert one["kind"] == other["kind"]
        assert one.get("bits_per_dim") == other.get("bits_per_dim")
        if one["kind"] == "train":
            assert 0 <= one["data_wait"] <= 1


def test_a_lost_worker_ends_training_in_one_line(
    cli: Cli, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        picture(tmp_path / "photos" / f"{number}.png", 14, 14)

    def deadly(path: Path) -> object:
        if path.name == "7.png":
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(path)

    monkeypatch.setattr("hvae.data.folder.decode", deadly)
    source = (f"data.source={tmp_path / 'photos'}", "data.workers=1", "data.batch=4")
    result = cli("train", config, *source, *TRAIN, f"runs_dir={tmp_path}")
    assert result.exit_code == 1
    assert "a process that reads images was killed" in result.stderr.splitlines()[-1]


def test_preparing_is_refused_in_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    words = ("data", "prepare", tmp_path / "empty", "-o", tmp_path / "p")
    for options, complaint in (
        ((), "no image in"),
        (("--size", "0x5"), "--size is 0x5; wanted pixels, such as 256"),
        (("--size", "big"), "--size is big"),
        (("--channels", "2"), "--channels is 2; wanted 1 for grey or 3 for RGB"),
    ):
        result = cli(*words, *options)
        assert result.exit_code == 2
        assert complaint in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_a_prepared_folder_is_inspected_to_the_byte(cli: Cli, tmp_path: Path) -> None:
    for number in range(40):
        picture(tmp_path / "photos" / f"{number}.png", 6, 8)
    done = cli("data", "prepare", tmp_path / "photos", "-o", tmp_path / "p", "--size", "4x5")
    assert done.exit_code == 0, done.stderr
    assert "size      4x5" in done.stdout
    record = json.loads(cli("data", "inspect", tmp_path / "p", "--json").stdout)
    assert (record["sizes"], record["unreadable"]) == ({"4x5": 40}, [])
    shard = tmp_path / "p" / "images-00000.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert f"changed: {shard}: " in cli("data", "inspect", tmp_path / "p").stdout


@pytest.mark.parametrize("verb", ["inspect", "prepare"])
def test_hostile_files_end_in_one_line(cli: Cli, tmp_path: Path, verb: str) -> None:
    (tmp_path / "set.npy").write_bytes(b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 70_000)
    options = ("-o", tmp_path / "p") if verb == "prepare" else ()
    result = cli("data", verb, tmp_path / "set.npy", *options)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert str(tmp_path / "set.npy") in result.stderr
