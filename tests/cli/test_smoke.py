"""`hvae train --smoke` says what it did; `hvae train` leaves curves."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli


def test_a_smoke_run_is_told_in_words_and_as_json(cli: Cli, config: Path, tmp_path: Path) -> None:
    result = cli("train", config, "--smoke", f"runs_dir={tmp_path}")
    assert result.exit_code == 0
    for text in ("tiny-run", "28 x 28, 1 channels", "2 latent groups", "peak", "removed"):
        assert text in result.stdout
    assert not list(tmp_path.iterdir())

    result = cli("train", config, "--smoke", f"runs_dir={tmp_path}", "name=kept", "--json")
    record = json.loads(result.stdout)
    assert record["run"] == str(tmp_path / "kept")
    assert len(record["step_seconds"]) == 2
    assert (tmp_path / "kept" / "samples" / "samples-final.png").is_file()


def test_a_run_leaves_its_curves(cli: Cli, config: Path, run: Path) -> None:
    pytest.importorskip("matplotlib")
    (run / "curves.png").unlink(missing_ok=True)
    assert cli("train", config, f"runs_dir={run.parent}", "train.lr=2e-3").exit_code == 0
    assert (run / "curves.png").is_file()


def test_curves_that_cannot_be_drawn_are_a_note(
    cli: Cli, config: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hvae.errors import UserError
    from hvae.training import figure

    def fail(*_: object) -> None:
        raise UserError("out of ink")

    monkeypatch.setattr(figure, "can_draw", lambda: True)
    monkeypatch.setattr(figure, "draw_curves", fail)
    result = cli("train", config, f"runs_dir={run.parent}", "train.lr=2e-3")
    assert result.exit_code == 0
    assert "no curves: out of ink" in result.stderr.splitlines()
