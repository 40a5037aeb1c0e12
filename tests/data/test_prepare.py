"""Prepared folders: the pixels of their source, whatever happened while they were made."""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hvae.data import DataConfig, SupportsTake, open_source, plan
from hvae.data.decode import decode
from hvae.data.prepare import prepare
from hvae.errors import UserError, WorkerLostError
from tests.data.mixed import BAD, write_mixed

SIDE = 16


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixed(tmp_path_factory.mktemp("data") / "photos", 60)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven images a shard, three a chunk."""
    monkeypatch.setattr(plan, "SHARD_BYTES", 7 * 3 * SIDE * SIDE + 5)
    monkeypatch.setattr("hvae.data.shards.CHUNK_BYTES", 3 * 3 * SIDE * SIDE)


def wanted(photos: Path, **options: object) -> DataConfig:
    values = {"source": str(photos), "size": SIDE, "channels": 3, "skip_bad": True}
    return DataConfig.model_validate(values | options)


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def reference(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "prepared"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "SHARD_BYTES", 7 * 3 * SIDE * SIDE + 5)
        prepare(wanted(photos), folder, workers=0)
    return folder


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.filterwarnings("ignore:skipping")
def test_a_prepared_folder_is_its_source(photos: Path, reference: Path, split: str) -> None:
    source = open_source(wanted(photos), split)
    prepared = open_source(DataConfig(source=str(reference)), split)
    assert isinstance(prepared, SupportsTake)
    assert (prepared.name, prepared.split, prepared.shape) == ("photos", split, (3, SIDE, SIDE))
    assert prepared.classes == source.classes == ("a", "b")
    assert prepared.labels is not None
    assert source.labels is not None
    assert torch.equal(prepared.labels, source.labels)
    assert prepared.identity() == source.identity()
    images = torch.stack([source[index] for index in range(len(source))])
    assert torch.equal(prepared.take(np.arange(len(prepared))), images)
    assert torch.equal(prepared[len(prepared) - 1], images[-1])


def test_nothing_but_pixels_and_a_manifest_is_left(reference: Path) -> None:
    names = sorted(path.name for path in reference.iterdir())
    assert names == [*(f"images-{number:05}.npy" for number in range(9)), "prepared.json"]
    shards = [np.load(reference / name) for name in names[:-1]]
    assert [len(shard) for shard in shards] == [7] * 8 + [4]
    manifest = json.loads((reference / "prepared.json").read_text())
    assert {entry["name"]: entry["kind"] for entry in manifest["skipped"]} == BAD
    # The rows of what was left out stay zero.
    for entry in manifest["skipped"]:
        assert not shards[entry["row"] // 7][entry["row"] % 7].any()


def test_the_number_of_workers_changes_no_byte(
    photos: Path, reference: Path, tmp_path: Path
) -> None:
    prepare(wanted(photos), tmp_path / "p", workers=2)
    assert contents(tmp_path / "p") == contents(reference)


def test_a_finished_folder_is_left_as_it_is(photos: Path, reference: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in reference.iterdir()}
    manifest = prepare(wanted(photos), reference)
    assert manifest.identity["train"].count + manifest.identity["test"].count == 54
    assert {path: path.stat().st_mtime_ns for path in reference.iterdir()} == before


def test_killed_again_and_again_it_ends_in_the_same_bytes(
    photos: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process is killed once it has finished two more shards."""
    folder = tmp_path / "p"

    def slowly(path: Path) -> object:
        time.sleep(0.01)
        return decode(path)

    monkeypatch.setattr("hvae.data.folder.decode", slowly)
    for finished, workers in ((2, 0), (4, 2), (6, 1)):
        process = multiprocessing.get_context("fork").Process(
            target=prepare, args=(wanted(photos), folder), kwargs={"workers": workers}
        )
        process.start()
        while process.is_alive() and not (folder / f".progress/{finished - 1:05}.json").exists():
            time.sleep(0.002)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (folder / "prepared.json").exists()
    with pytest.raises(UserError, match="no image"):  # it is not taken for a finished one
        open_source(DataConfig(source=str(folder)), "train")
    kept = (folder / "images-00001.npy").stat().st_mtime_ns
    prepare(wanted(photos), folder, workers=1)
    assert (folder / "images-00001.npy").stat().st_mtime_ns == kept
    assert contents(folder) == contents(reference)


def test_a_kill_between_the_manifest_and_the_tidying_up(
    photos: Path, reference: Path, tmp_path: Path
) -> None:
    shutil.copytree(reference, tmp_path / "p")
    (tmp_path / "p" / ".progress").mkdir()
    (tmp_path / "p" / ".progress" / "plan.json").write_text("{}")
    prepare(wanted(photos), tmp_path / "p")
    assert contents(tmp_path / "p") == contents(reference)


def test_a_lost_worker_is_a_clear_error_and_the_next_call_goes_on(
    photos: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deadly(path: Path) -> object:
        if path.name.startswith("00031"):
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(path)

    with monkeypatch.context() as patch:
        patch.setattr("hvae.data.folder.decode", deadly)
        with pytest.raises(WorkerLostError, match=r"was killed.*run the same command again"):
            prepare(wanted(photos), tmp_path / "p", workers=2)
    prepare(wanted(photos), tmp_path / "p", workers=0)
    assert contents(tmp_path / "p") == contents(reference)


def test_an_unreadable_file_is_named_unless_it_is_to_be_skipped(
    photos: Path, reference: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"a/text\.png: it is none of.*--skip-bad"):
        prepare(wanted(photos, skip_bad=False), tmp_path / "p", workers=0)
    prepare(wanted(photos), tmp_path / "p", workers=0)  # goes on with what was begun
    assert contents(tmp_path / "p") == contents(reference)
    with pytest.raises(UserError, match=r"without 6 unreadable files, such as .*--skip-bad"):
        prepare(wanted(photos, skip_bad=False), tmp_path / "p")


@pytest.fixture
def few(tmp_path: Path) -> Path:
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)
        (tmp_path / "few").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "few" / f"{number:02}.png")
    return tmp_path / "few"


def change_content(few: Path) -> None:
    Image.new("RGB", (7, 9)).save(few / "03.png")


def add(few: Path) -> None:
    shutil.copy(few / "03.png", few / "new.png")


def remove(few: Path) -> None:
    (few / "03.png").unlink()


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (change_content, r"changed since \(the content of files\)"),
        (add, r"1 files new, such as new\.png"),
        (remove, r"1 files gone, such as 03\.png"),
    ],
)
def test_a_source_that_has_changed_is_noticed(
    few: Path, tmp_path: Path, change, complaint: str, finished: bool
) -> None:
    prepare(wanted(few), tmp_path / "p", workers=0)
    if not finished:
        (tmp_path / "p" / ".progress").mkdir()
        manifest = json.loads((tmp_path / "p" / "prepared.json").read_text())
        (tmp_path / "p" / "prepared.json").unlink()
        (tmp_path / "p" / ".progress" / "plan.json").write_text(json.dumps(manifest["plan"]))
    change(few)
    with pytest.raises(UserError, match=complaint):
        prepare(wanted(few), tmp_path / "p", workers=0)


def test_a_source_that_changes_meanwhile_is_noticed(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changing(path: Path) -> object:
        if path.name == "19.png":
            change_content(few)
        return decode(path)

    monkeypatch.setattr("hvae.data.folder.decode", changing)
    with pytest.raises(UserError, match="has changed while it was read"):
        prepare(wanted(few), tmp_path / "p", workers=0)
    assert not (tmp_path / "p" / "prepared.json").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"size": 8}, r"shape \(3, 16, 16\) \(now \(3, 8, 8\)\)"),
        ({"channels": 1}, r"shape \(3, 16, 16\) \(now \(1, 16, 16\)\)"),
    ],
)
def test_another_shape_needs_another_folder(
    few: Path, tmp_path: Path, options: dict[str, int], complaint: str
) -> None:
    prepare(wanted(few), tmp_path / "p", workers=0)
    with pytest.raises(UserError, match=complaint):
        prepare(wanted(few, **options), tmp_path / "p", workers=0)
    with pytest.raises(UserError, match=r"was prepared at 16 x 16 with 3 channels"):
        open_source(wanted(tmp_path / "p", **options), "train")


def test_folders_of_other_things_are_left_alone(few: Path, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"p holds other files, such as thesis\.tex"):
        prepare(wanted(few), tmp_path / "p", workers=0)
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["thesis.tex"]


def test_two_processes_do_not_prepare_one_folder(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = tmp_path / "refusals"

    def refused() -> None:
        with pytest.raises(UserError, match="another process is preparing it"):
            prepare(wanted(few), tmp_path / "p", workers=0)
        refusals.write_text("one")

    def slowly(path: Path) -> object:
        if not refusals.exists():
            second = multiprocessing.get_context("fork").Process(target=refused)
            second.start()
            second.join()
        return decode(path)

    monkeypatch.setattr("hvae.data.folder.decode", slowly)
    prepare(wanted(few), tmp_path / "p", workers=0)
    assert refusals.exists()


def test_a_full_disk_is_told_before_and_during(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(UserError, match=r"p: 0\.0 GiB are to be written"):
            prepare(wanted(few), tmp_path / "p", workers=0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("hvae.files.os.fsync", full)
        with pytest.raises(UserError, match=r"p cannot be written: No space left on device"):
            prepare(wanted(few), tmp_path / "p", workers=0)
    prepare(wanted(few), tmp_path / "p", workers=0)


def test_arrays_keep_labels_classes_and_conditions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "set.npz",
        images=rng.integers(0, 256, (40, 5, 5, 3), dtype=np.uint8),
        labels=np.arange(40) % 2,
        classes=np.array(["even", "odd"]),
        conditions=rng.normal(size=(40, 4)).astype(np.float32),
    )
    config = wanted(tmp_path / "set.npz")
    prepare(config, tmp_path / "p", workers=1)
    for split in ("train", "test"):
        source, prepared = open_source(config, split), open_source(wanted(tmp_path / "p"), split)
        rows = np.arange(len(source))
        assert torch.equal(source.take(rows), prepared.take(rows))
        assert torch.equal(source.labels, prepared.labels)
        assert torch.equal(source.conditions, prepared.conditions)
        assert prepared.classes == ("even", "odd")
        assert source.identity() == prepared.identity()


def test_a_prepared_folder_is_not_prepared_again(reference: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is prepared already"):
        prepare(wanted(reference), tmp_path / "p")


def test_names_that_are_no_unicode_are_kept_apart(few: Path, tmp_path: Path) -> None:
    os.rename(few / "03.png", os.fsencode(few) + b"/\xff\xfe.png")
    prepare(wanted(few), tmp_path / "p", workers=0)
    for split in ("train", "test"):
        source, prepared = (
            open_source(wanted(few, skip_bad=False), split),
            open_source(wanted(tmp_path / "p"), split),
        )
        assert source.identity() == prepared.identity()
