"""`hvae plot` draws runs or prints their points."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Cli


def test_the_figure_goes_into_the_run_folder(cli: Cli, run: Path) -> None:
    pytest.importorskip("matplotlib")
    (run / "curves.png").unlink(missing_ok=True)
    result = cli("plot", run)
    assert (result.exit_code, result.stdout) == (0, f"{run}/curves.png: tiny-run\n")
    with Image.open(run / "curves.png") as figure:
        assert figure.format == "PNG"


def test_json_prints_the_points_and_draws_only_where_asked(
    cli: Cli, run: Path, tmp_path: Path
) -> None:
    (run / "curves.png").unlink(missing_ok=True)
    record = json.loads(cli("plot", run, run, "--json").stdout)
    assert record["out"] is None
    assert [points["test_images"] for points in record["runs"]] == [[200], [200]]
    assert record["runs"][0]["resolutions"] == [7, 14]
    assert not (run / "curves.png").exists()

    pytest.importorskip("matplotlib")
    out = tmp_path / "both.png"
    assert json.loads(cli("plot", run, "-o", out, "--json").stdout)["out"] == str(out)
    assert out.is_file()


def test_wrong_use_exits_with_2(cli: Cli, run: Path, tmp_path: Path) -> None:
    result = cli("plot", tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"hvae: {tmp_path} has no metrics.jsonl; wanted a run folder such as runs/fashion-mini\n"
    )
    assert cli("plot", run, run).exit_code == 2
    assert cli("plot", run, "-o", tmp_path / "curves.gif").exit_code == 2
