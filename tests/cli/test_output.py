"""Progress and warnings: lines on stderr that say no more than they should."""

import io
import sys
import warnings

import pytest

from hvae.cli.output import plain_warnings, printable, progress, table


def test_progress_without_a_terminal_is_a_line_per_tenth(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress("images", 1000) as update:
        for done in range(0, 1001, 10):
            update(done)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"images: {done} of 1000" for done in range(100, 1001, 100)]


def test_progress_tells_the_time_that_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 130.0, 160.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with progress("images", 400) as update:
        update(100)
        update(400)
    assert capsys.readouterr().err.splitlines() == [
        "images: 100 of 400, 0:01:30 left",
        "images: 400 of 400",
    ]


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("images", 10) as update:
        update(10)
    assert "images: 10 of 10" not in terminal.getvalue()
    assert "images" in terminal.getvalue()


def test_warnings_are_shown_as_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    plain_warnings()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        plain_warnings()
        warnings.warn("the references run", stacklevel=1)
    assert capsys.readouterr().err == "hvae: warning: the references run\n"


def test_a_table_is_aligned() -> None:
    assert table({"a": 1, "long": "x"}) == "a     1\nlong  x"


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert printable("caf\u00e9\n\x1b[31m \u202e \udcff") == "caf\u00e9\n\\x1b[31m \\u202e \\xff"
