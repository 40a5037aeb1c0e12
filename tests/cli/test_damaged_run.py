"""The verbs on runs that are damaged: the newest complete checkpoint, or one line."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Cli


@pytest.fixture
def damaged(run: Path, tmp_path: Path) -> Path:
    """A copy of the shared run with an older checkpoint, whose newest weights are cut short."""
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    newest = copy / "checkpoints" / "step-4"
    shutil.copytree(newest, newest.with_name("step-2"))
    weights = newest / "ema.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    return copy


@pytest.mark.parametrize("verb", [["sample", "-n", "2", "-o"], ["reconstruct", "-n", "2", "-o"]])
def test_a_verb_takes_the_newest_complete_checkpoint_and_says_so(
    cli: Cli, damaged: Path, verb: list[str]
) -> None:
    with pytest.warns(UserWarning, match=r"step-4: ema\.safetensors .* Using step-2$"):
        result = cli(*verb, damaged / "out.png", damaged, "--json")
    assert result.exit_code == 0
    used = damaged / "checkpoints" / "step-2" / "ema.safetensors"
    assert json.loads(result.stdout)["checkpoint"] == str(used)
    assert (damaged / "checkpoints" / "step-4").is_dir()


@pytest.mark.parametrize("named", ["checkpoints/step-4", "best"])
def test_a_damaged_checkpoint_that_is_named_is_refused(cli: Cli, damaged: Path, named: str) -> None:
    (damaged / "best").write_text("step-4\n")
    result = cli("eval", damaged / named, "--images", "4")
    assert result.exit_code == 2
    folder = damaged / "checkpoints" / "step-4"
    assert result.stderr.startswith(f"hvae: {folder}: this checkpoint is damaged: ema.safetensors")
    assert result.stderr.count("\n") == 1


def test_best_and_latest_stand_for_a_checkpoint(cli: Cli, damaged: Path) -> None:
    for name in ("best", "latest"):
        (damaged / name).write_text("step-2\n")
        result = cli("eval", damaged / name, "--images", "4", "--json")
        assert result.exit_code == 0, result.stderr
        assert "step-2" in json.loads(result.stdout)["checkpoint"]


def test_without_best_the_key_is_named(cli: Cli, run: Path) -> None:
    result = cli("eval", run / "best")
    assert (result.exit_code, result.stderr) == (
        2,
        f"hvae: {run / 'best'}: no such file; a run with train.keep_best=true has one\n",
    )
