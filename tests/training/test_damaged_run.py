"""A run whose newest checkpoint is damaged goes on from the one before, with the same bits."""

import os
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hvae import checkpoint
from hvae.errors import UserError
from hvae.training import Config, fit, load_config
from hvae.training.run_folder import RunFolder
from hvae.training.step import Stepper, StepReport
from tests.checkpoint.crash import Crash
from tests.checkpoint.test_damage import DAMAGES
from tests.training.conftest import TINY
from tests.training.test_resume import contents, rows

Tiny = Callable[..., Config]


def stop_after(config: Config, step: int) -> None:
    """Trains until a signal in a step."""
    take = Stepper.step

    def step_and_stop(self: Stepper, x: torch.Tensor, **given: int) -> StepReport:
        report = take(self, x, **given)
        if self.steps == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return report

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "step", step_and_stop)
        assert fit(config).stopped


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run, and one like it that was stopped after step 5, with steps 4 and 5 saved."""
    folder = tmp_path_factory.mktemp("runs")
    file = folder / "tiny.yaml"
    file.write_text(f"runs_dir: {folder}\n{TINY}")
    fit(load_config(file, ("name=whole",)))
    stop_after(load_config(file, ()), 5)
    return folder / "whole", folder / "tiny"


@pytest.fixture
def run(stopped: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the stopped run where the fixture `tiny` has its own."""
    return Path(shutil.copytree(stopped[1], tmp_path / "tiny"))


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.values(), ids=DAMAGES.keys())
def test_it_goes_on_from_the_one_before(
    tiny: Tiny,
    run: Path,
    stopped: tuple[Path, Path],
    damage: Callable[[Path], object],
    reason: str,
) -> None:
    newest = run / "checkpoints" / "step-5"
    damage(newest)
    there = newest.exists()
    with pytest.warns(UserWarning, match=r"step-5: .* Going on from step-4$") as caught:
        assert fit(tiny()).images == 30
    assert reason in str(caught[0].message)
    assert rows(run) == rows(stopped[0])
    assert contents(run) == contents(stopped[0])
    assert (run / "checkpoints" / "damaged-step-5").exists() == there


@pytest.mark.parametrize("text", ["", "step-999\n", "../../etc\n"])
def test_a_damaged_latest_does_not_begin_the_run_anew(
    tiny: Tiny, run: Path, stopped: tuple[Path, Path], text: str
) -> None:
    (run / "latest").write_text(text)
    with pytest.warns(UserWarning, match="Going on from step-5"):
        fit(tiny())
    assert rows(run) == rows(stopped[0])
    assert contents(run) == contents(stopped[0])


def test_without_a_complete_one_it_is_refused_and_nothing_is_lost(tiny: Tiny, run: Path) -> None:
    for step in (4, 5):
        (run / "checkpoints" / f"step-{step}" / "model.safetensors").unlink()
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with pytest.raises(UserError) as caught:
        fit(tiny())
    missing = "model.safetensors is missing"
    assert str(caught.value) == (
        f"{run}: no checkpoint of this run is complete; step-5: {missing}; step-4: {missing}. "
        "Bring one back, or choose name=... for a new run"
    )
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_other_values_are_refused_before_anything_is_set_aside(tiny: Tiny, run: Path) -> None:
    (run / "checkpoints" / "step-5" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="this run was started with seed=0"):
        fit(tiny("seed=1"))
    assert (run / "checkpoints" / "step-5").exists()


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"name: [", b"data: {source: /etc/passwd}"])
def test_a_damaged_record_of_the_configuration_is_written_anew(
    tiny: Tiny, run: Path, text: bytes
) -> None:
    """What the run was started with is in its checkpoints, under their digest."""
    (run / "config.yaml").write_bytes(text)
    with warnings.catch_warnings(action="error"):
        fit(tiny())
    assert load_config(run / "config.yaml").train == tiny().train


def test_a_damaged_line_of_the_log_is_left_out(
    tiny: Tiny, run: Path, stopped: tuple[Path, Path]
) -> None:
    log = run / "metrics.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + b"\x00\xff{" + lines[1] + b"".join(lines[2:]) + b'{"step": 6, "i')
    fit(tiny())
    whole = rows(stopped[0])
    assert rows(run) == [whole[0], *whole[2:]]


def test_a_kill_in_the_last_evaluation_leaves_one_row_of_it(
    tiny: Tiny, tmp_path: Path, stopped: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a stop at the last step, the checkpoint and the evaluation are of one step."""
    stop_after(tiny(), 8)

    def killed(*args: object, **options: object) -> None:
        raise Crash

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "save", killed)
            with pytest.raises(Crash):
                fit(tiny())
    assert len(rows(tmp_path / "tiny")) == len(rows(stopped[0])), "the row of the kill"
    fit(tiny())
    assert rows(tmp_path / "tiny") == rows(stopped[0])
    assert contents(tmp_path / "tiny") == contents(stopped[0])


def test_a_run_that_diverges_past_a_damaged_good_state_goes_back_further(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, good = Stepper.step, tmp_path / "tiny" / "checkpoints" / "step-6"

    def step(self: Stepper, x: torch.Tensor, **given: int) -> StepReport:
        if self.steps == 7 and self.guard.rollbacks == 0:
            (good / "ema.safetensors").unlink()
            self.ema.tensors["decoder.gain"].fill_(float("nan"))
        return take(self, x, **given)

    monkeypatch.setattr(Stepper, "step", step)
    with pytest.warns(UserWarning, match=r"step-6: ema.*Going on from step-4$"):
        result = fit(tiny("train.guard.max_above_uniform=null"))
    assert (result.rollbacks, result.images) == (1, 30)
    steps = [row["step"] for row in rows(tmp_path / "tiny") if row["kind"] == "train"]
    assert steps == list(range(1, 8))


def test_a_file_system_without_locks_is_told(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*args: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("hvae.training.run_folder.fcntl.flock", flock)
    with pytest.warns(UserWarning, match="has no locks"), RunFolder(tiny()).locked():
        pass
    assert checkpoint.latest_checkpoint(tmp_path / "tiny") is None
