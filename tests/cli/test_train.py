"""`hvae train` ends with the score, resumes, and stops with 75."""

import json
from pathlib import Path

import pytest
from typer.testing import Result

from hvae import training
from hvae.training import FitResult
from tests.cli.conftest import Cli


def test_the_last_line_is_the_score_with_its_protocol(trained: tuple[Path, Result]) -> None:
    run, result = trained
    last = result.stdout.splitlines()[-1]
    assert last.startswith("test bits/dim: ")
    assert last.endswith(" (ELBO, few-clothes test, 60 images)")
    assert (run / "config.yaml").is_file()


def test_a_finished_run_reports_again_without_training(
    cli: Cli, config: Path, trained: tuple[Path, Result]
) -> None:
    run, first = trained
    again = cli("train", config, f"runs_dir={run.parent}", "train.lr=2e-3", "--json")
    record = json.loads(again.stdout)
    assert f"{record['bits_per_dim']:.3f}" in first.stdout.splitlines()[-1]
    assert (record["run"], record["images"], record["stopped"]) == (str(run), 200, False)


def test_a_run_is_not_resumed_with_other_settings(cli: Cli, config: Path, run: Path) -> None:
    result = cli("train", config, f"runs_dir={run.parent}", "train.lr=1e-3")
    assert result.exit_code == 2
    assert "train.lr=0.002 (now 0.001)" in result.stderr


def test_a_misspelt_key_exits_with_2_and_the_right_one(cli: Cli, config: Path) -> None:
    result = cli("train", config, "model.widht=3")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        'hvae: model.widht=3: unknown key "model.widht"; did you mean "model.width"?\n'
    )


def test_a_missing_configuration_exits_with_2(cli: Cli) -> None:
    result = cli("train", "fashon_mini")
    assert result.exit_code == 2
    assert result.stderr == (
        "hvae: fashon_mini: no such configuration; did you mean fashion_mini?\n"
    )


@pytest.mark.parametrize("json_option", [[], ["--json"]])
def test_a_stopped_run_exits_with_75_and_says_how_to_go_on(
    cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch, json_option: list[str]
) -> None:
    stopped = FitResult(
        run=Path("runs/tiny-run"), images=120, bits_per_dim=None, importance_bits_per_dim=None,
        dataset="few-clothes", split="test", num_images=0, stopped=True,
    )  # fmt: skip
    monkeypatch.setattr(training, "fit", lambda config, **_: stopped)
    result = cli("train", config, *json_option)
    assert result.exit_code == 75
    assert result.stderr == (
        "stopped and saved in runs/tiny-run; run the same command again to go on\n"
    )
    if json_option:
        assert json.loads(result.stdout)["stopped"] is True
    else:
        assert result.stdout == "runs/tiny-run: 120 images\n"


def test_a_plan_is_printed_and_nothing_is_trained(cli: Cli, config: Path, tmp_path: Path) -> None:
    arguments = ("train", "--plan", config, f"runs_dir={tmp_path / 'none'}")
    record = json.loads(cli(*arguments, "--json").stdout)
    assert record["total_bytes"] > 4 * 4 * record["footprint"]["parameters"]
    assert record["images_per_second"] > 0
    text = cli(*arguments, "train.checkpoint_activations=block").stdout
    assert "activations" in text
    assert ": block" in text
    assert not (tmp_path / "none").exists()
