"""Hostile and odd inputs of `hvae fid` and `hvae fid-stats`: one line each, nothing half written.

The inputs are tables in `tests/cli/hostile`; every one of them goes through the same test.
"""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from PIL import Image

from hvae import files
from tests.cli.conftest import Cli
from tests.cli.hostile import arrays, foreign, images, networks, options, runs, statistics
from tests.cli.hostile.case import Case

TABLES = (images, arrays, statistics, foreign, runs, options, networks)
CASES = [case for table in TABLES for case in table.CASES]

POOLED = ("--features", "odd:Pooled")

SECONDS = 20  # a command that takes longer waits for something that never comes


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What cases share and none changes: extractors, two folders of images, two runs."""
    folder = tmp_path_factory.mktemp("shelf")
    shutil.copy(networks.MODULE, folder)
    for name, source in networks.FAILING.items():
        (folder / f"{name}.py").write_text(source)
    rng = np.random.default_rng(0)
    for name, brightest in (("bright", 256), ("dark", 128)):
        (folder / name).mkdir()
        for index in range(16):
            pixels = rng.integers(0, brightest, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:02}.png")
    runs.write_run(folder / "run", str(folder / "bright"))
    runs.write_run(folder / "told", str(folder / "bright"), **runs.TOLD)
    runs.write_run(folder / "tiny", str(folder / "bright"), **runs.TINY)
    return folder


@pytest.fixture
def place(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own for each case, without weights anywhere."""
    place = tmp_path / "place"
    place.mkdir()
    for name in ("bright", "dark", "run", "told", "tiny"):
        (place / name).symlink_to(shelf / name)
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(shelf)
    monkeypatch.setenv("PYTHONPATH", str(shelf), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("MPLCONFIGDIR", str(shelf / "matplotlib"))  # torchmetrics imports it
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("HVAE_WEIGHTS", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    return place


@contextmanager
def in_time(seconds: int) -> Iterator[None]:
    """Fails what hangs."""

    def stop(*_: object) -> None:
        pytest.fail(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below the folder of a test, with sizes and times."""
    found = {}
    for parent, *names in os.walk(folder.parent):
        for name in chain(*names):
            path = Path(parent, name)
            status = path.lstat()
            found[str(path)] = (0, 0) if path.is_dir() else (status.st_size, status.st_mtime_ns)
    return found


def check_refusal(case: Case, code: int, stdout: str, stderr: str) -> None:
    lines = stderr.split("\n")
    told = [line for line in lines if line.startswith("hvae: ") and ": warning: " not in line[:16]]
    assert code == case.code, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert len(told) == 1, stderr
    assert lines[-2:] == [told[0], ""]  # it is the last one, and nothing of it is on another
    assert told[0].isprintable()
    assert case.told in told[0]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_refused_in_one_line(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    case.make(place)
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)
    before = listing(place)
    with in_time(SECONDS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of images that are skipped
        result = cli(*case.arguments())
    check_refusal(case, result.exit_code, result.stdout, result.stderr)
    assert listing(place) == before


def test_there_are_many_and_none_twice() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 200


INSTALLED = [
    "DATA: a pipe",
    "--out: no file",
    "image whose name has no text",
    "npz of objects",
    "npy of a pipe",
    "statistics: NaN in the mean",
    "statistics: a huge header",
    "run with cut weights",
    "network: a call that raises",
    "weights: a pickle with code",
]


@pytest.mark.parametrize(
    "name",
    [*INSTALLED[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in INSTALLED[2:])],
)
def test_the_installed_command_says_the_same(place: Path, name: str) -> None:
    (case,) = (case for case in CASES if case.name == name)
    case.make(place)
    before = listing(place)
    command = [Path(sys.executable).with_name("hvae"), *case.arguments()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    check_refusal(case, done.returncode, done.stdout, done.stderr)
    assert listing(place) == before


@pytest.mark.parametrize("name", images.BAD)
def test_bad_images_are_counted_when_they_may_be_left_out(cli: Cli, place: Path, name: str) -> None:
    make, _ = images.BAD[name]
    images.among_good(name, make)(place)
    with in_time(SECONDS), pytest.warns(UserWarning, match=f"skipping 1 of 4 files:\n.*{name}"):
        result = cli("fid", "a", "--real", "bright", "--skip-bad", *POOLED, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["results"][0]["n_fake"] == 3


def test_a_metric_that_is_named_twice_is_computed_once(cli: Cli, place: Path) -> None:
    result = cli("fid", "bright", "--real", "dark", "--metrics", "fid, fid,kid", *POOLED, "--json")
    names = [row["metric"] for row in json.loads(result.stdout)["results"]]
    assert names == ["FD-odd:Pooled", "KD-odd:Pooled"]


def test_what_a_network_prints_is_no_result(cli: Cli, place: Path) -> None:
    result = cli("fid", "bright", "--real", "dark", "--features", "odd:Talking", "--json")
    assert json.loads(result.stdout)["features"] == "odd:Talking"
    assert "made\n" in result.stderr
    assert "called\n" in result.stderr


@pytest.mark.parametrize("name", ["no text: \udcff", "\x1b[31mred", "two\nlines"])
def test_odd_names_of_sets_are_printable_in_results(cli: Cli, place: Path, name: str) -> None:
    (place / name).symlink_to(place / "bright")
    for word in (name, f"folder:{name}"):
        for words in ((word, "--real", "bright"), ("bright", "--real", word)):
            result = cli("fid", *words, *POOLED)
            assert result.exit_code == 0, result.stderr
            assert all(line.isprintable() for line in result.output.splitlines())


def _full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("hvae.files.os.fsync", fsync)


def _limited_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files may have 100 bytes; the signal that says so has to be ignored."""
    write = files.replacing

    @contextmanager
    def limited(file: Path) -> Iterator[BinaryIO]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            with write(file) as stream:
                yield stream
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    monkeypatch.setattr("hvae.metrics.reference.replacing", limited)


@pytest.mark.parametrize(
    ("fill", "reason"),
    [(_full_disk, "No space left on device"), (_limited_files, "File too large")],
)
@pytest.mark.parametrize("kept", ["before", None], ids=["over a file", "a new file"])
def test_a_full_disk_leaves_what_was_there(
    cli: Cli,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    fill: Callable[[pytest.MonkeyPatch], None],
    reason: str,
    kept: str | None,
) -> None:
    out = place / "s.safetensors"
    if kept is not None:
        out.write_text(kept)
    before = listing(place)
    with monkeypatch.context() as patch:
        fill(patch)
        result = cli("fid-stats", "bright", "-o", out, *POOLED)
    case = Case("full", (), f"cannot write {out}: {reason}", code=1)
    check_refusal(case, result.exit_code, result.stdout, result.stderr)
    assert listing(place) == before
    assert cli("fid-stats", "bright", "-o", out, *POOLED).exit_code == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
@pytest.mark.parametrize(
    ("locked", "words"),
    [
        ("a/0.png", ("fid", "a", "--real", "bright")),
        ("a", ("fid", "a", "--real", "bright")),
        ("a", ("fid-stats", "bright", "-o", "a/s.safetensors")),
    ],
)
def test_permissions_are_asked_for(
    cli: Cli, place: Path, locked: str, words: tuple[str, ...]
) -> None:
    images.among_good("bad.png", images.containing(b""))(place)
    (place / locked).chmod(0)
    result = cli(*words, *POOLED)
    (place / locked).chmod(0o700)
    case = Case("locked", (), "Permission denied")
    check_refusal(case, result.exit_code, result.stdout, result.stderr)
