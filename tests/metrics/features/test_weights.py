"""Where weights are looked for, how they are checked, and how they are fetched."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch

from hvae.errors import UserError
from hvae.metrics.features import weights
from hvae.metrics.features.download import download
from hvae.metrics.features.weights import WeightsFile

CONTENT = bytes(range(256)) * 20


def weights_file(url: str = "http://localhost/w.pth", content: bytes = CONTENT) -> WeightsFile:
    sha256 = hashlib.sha256(content).hexdigest()
    return WeightsFile("w.pth", url, sha256, len(content), other_names=("other.pth",))


def put(folder: Path, name: str = "w.pth") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(CONTENT)
    return folder / name


def test_folders_are_searched_in_order(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HVAE_WEIGHTS", str(tmp_path / "mine"))
    assert weights.find(["w.pth"]) is None
    for folder in (tmp_path / "torch" / "hub" / "checkpoints", cache, tmp_path / "mine"):
        expected = put(folder)
        assert weights.find(["w.pth"]) == expected
    given = put(tmp_path / "given")
    assert weights.find(["w.pth"], tmp_path / "given") == given


def test_the_caches_of_home_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert [str(folder) for folder in weights.search_folders()] == [
        "/home/someone/.cache/hvae/weights",
        "/home/someone/.cache/torch/hub/checkpoints",
    ]


def test_a_file_that_is_given_may_have_any_name(tmp_path: Path) -> None:
    file = put(tmp_path, "renamed.bin")
    assert weights.find(["w.pth"], file) == file


def test_the_variable_may_name_a_file_of_the_right_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(tmp_path)
    monkeypatch.setenv("HVAE_WEIGHTS", str(file))
    assert weights.find(["w.pth"]) == file
    assert weights.find(["another.pth"]) is None


def test_names_of_other_tools_come_after_the_own(cache: Path) -> None:
    other = put(cache, "other.pth")
    assert weights.find(["w.pth", "other.pth"]) == other
    own = put(cache)
    assert weights.find(["w.pth", "other.pth"]) == own


def test_nothing_else_is_searched_where_a_place_is_given(tmp_path: Path, cache: Path) -> None:
    put(cache)
    with pytest.raises(UserError, match=r"empty: no such file, and no folder that holds w\.pth"):
        weights.find(["w.pth"], tmp_path / "empty")


def test_a_missing_file_is_told_with_all_that_mends_it(cache: Path) -> None:
    file = weights_file()
    message = str(weights.missing(file))
    for part in (file.name, file.url, file.sha256, str(cache), "--download"):
        assert part in message
    assert "\n" not in message


def test_a_wrong_hash_names_both(tmp_path: Path) -> None:
    file = put(tmp_path)
    with pytest.raises(UserError) as caught:
        weights.check_sha256(file, "0" * 64)
    assert "0" * 64 in str(caught.value)
    assert weights_file().sha256 in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"w\.pth: cannot be read: No such file"):
        weights.file_sha256(tmp_path / "w.pth")


@pytest.mark.parametrize("content", ["a text", {"a": 1}, [torch.zeros(1)]])
def test_only_a_dictionary_of_tensors_is_read(tmp_path: Path, content: object) -> None:
    path = tmp_path / "w.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match="wanted a dictionary of tensors"):
        weights.read_state_dict(path, weights.file_sha256(path))


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("unpickled",)


def test_nothing_but_tensors_is_unpickled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": Hostile()}, path)
    with pytest.raises(UserError, match="cannot be read as a dictionary of tensors"):
        weights.read_state_dict(path, weights.file_sha256(path))
    assert capsys.readouterr().out == ""


def test_the_hash_of_tensors_sees_names_shapes_types_and_values() -> None:
    base = {"a": torch.arange(6.0), "b": torch.tensor(3)}
    digests = [
        weights.tensors_sha256(tensors)
        for tensors in (
            base,
            {"c": base["a"], "b": base["b"]},
            base | {"a": base["a"].view(2, 3)},
            base | {"a": base["a"].int()},
            base | {"a": base["a"] + 1e-6},
        )
    ]
    assert len(set(digests)) == 5
    assert weights.tensors_sha256(dict(reversed(base.items()))) == digests[0]


def test_keys_that_differ_are_named(tmp_path: Path) -> None:
    wanted = {name: torch.zeros(2) for name in "abcde"}
    weights.check_keys(tmp_path, dict(wanted), wanted)
    found = {"e": torch.zeros(3), "z": torch.zeros(1)}
    with pytest.raises(UserError) as caught:
        weights.check_keys(tmp_path, found, wanted)
    assert "4 missing (a, b, c, ...); 1 unknown (z)" in str(caught.value)
    assert "1 of another shape (e (3,) for (2,))" in str(caught.value)


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT, or a part of it, at /whole, /short and /long; anything else is missing."""

    def do_GET(self) -> None:
        body = {"/whole": CONTENT, "/short": CONTENT[:-7], "/long": CONTENT + b"!"}
        if self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:100])
        elif self.path in body:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body[self.path])
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server on this machine."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def visible(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir() if not f.name.endswith(".lock"))


def test_a_download_arrives_whole_in_the_cache(server: str, cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = download(weights_file(f"{server}/whole"), lambda done, of: seen.append((done, of)))
    assert path == cache / "w.pth"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert visible(cache) == ["w.pth"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/missing", "cannot be downloaded: HTTP 404"),
        ("/short", "sent 5113 bytes with sha256 .*, wanted 5120 with"),
        ("/long", "sends more than the 5120 bytes published"),
        ("/cut", "sent 100 bytes|cannot be downloaded to .*IncompleteRead"),
    ],
)
def test_a_download_that_fails_leaves_nothing(
    server: str, cache: Path, path: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        download(weights_file(server + path))
    assert "\n" not in str(caught.value)
    assert visible(cache) == []


def test_other_bytes_of_the_same_length_leave_nothing(server: str, cache: Path) -> None:
    with pytest.raises(UserError, match="wanted 5120 with"):
        download(weights_file(f"{server}/whole", CONTENT[::-1]))
    assert visible(cache) == []


def test_an_interrupted_download_leaves_nothing(server: str, cache: Path) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(weights_file(f"{server}/whole"), interrupt)
    assert visible(cache) == []


def test_a_server_that_is_not_there_is_one_line(cache: Path) -> None:
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9/w: cannot be downloaded: .*refused"):
        download(weights_file("http://127.0.0.1:9/w"))
    assert visible(cache) == []


def test_a_folder_that_cannot_be_made_is_one_line(server: str, cache: Path) -> None:
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"cannot be downloaded to .*w\.pth: "):
        download(weights_file(f"{server}/whole"))


def test_two_processes_do_not_write_one_file(
    server: str,
    cache: Path,
    held_elsewhere: Callable[[Path], AbstractContextManager[None]],
) -> None:
    cache.mkdir(parents=True)
    held = held_elsewhere(cache / ".w.pth.lock")
    with held, pytest.raises(UserError, match="another process downloads it now"):
        download(weights_file(f"{server}/whole"))
    assert download(weights_file(f"{server}/whole")).exists()
