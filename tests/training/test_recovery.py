"""Planted divergences: a run recovers or ends clearly, and only ever writes finite weights."""

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from hvae import checkpoint
from hvae.cli.main import app
from hvae.errors import TrainingError, UserError
from hvae.models import HVAE, Elbo
from hvae.training import Config, fit
from hvae.training.recovery import Recovery
from hvae.training.step import Stepper, StepReport
from tests.training.test_resume import MEASURED

Tiny = Callable[..., Config]
When = Callable[[Stepper], bool]
Plant = Callable[[When], None]

MODULE = "decoder.blocks.1.resnet"
LONG = "train.images=96"  # 24 steps


@pytest.fixture
def tiny(tiny: Tiny) -> Tiny:
    """A run so short stays above 8 bits/dim, where no checkpoint counts as good: not watched."""
    return lambda *overrides: tiny("train.guard.max_above_uniform=null", *overrides)


def rows(run: Path, kind: str | None = None) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if kind in (None, row["kind"])]


def without_times(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows(run)]


def tensors(run: Path) -> dict[str, Tensor]:
    return {
        f"{file.parent.name}/{file.name}/{name}": tensor
        for file in sorted((run / "checkpoints").rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def assert_all_finite(run: Path) -> None:
    found = tensors(run)
    assert found
    assert all(tensor.isfinite().all() for tensor in found.values())


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Makes the output of a module NaN in the training steps that a condition picks."""

    def poison(when: When) -> None:
        current: list[Stepper] = []
        take = Stepper.step

        def step(self: Stepper, x: Tensor, **given: int) -> StepReport:
            current[:] = [self]
            module = self.model.get_submodule(MODULE)
            if not hasattr(module, "plain_forward"):
                module.plain_forward = module.forward
                module.forward = lambda x: spoiled(self, module.plain_forward(x))
            return take(self, x, **given)

        def spoiled(stepper: Stepper, output: Tensor) -> Tensor:
            bad = stepper.model.training and when(stepper)
            return output * math.nan if bad else output

        monkeypatch.setattr(Stepper, "step", step)

    return poison


def early(stepper: Stepper) -> bool:
    """From step 8 on, until the learning rate is halved."""
    return stepper.steps >= 8 and stepper.guard.rollbacks == 0


def test_a_run_that_diverges_once_goes_back_and_ends_well(tiny, tmp_path, plant, capsys):
    plant(early)
    result = fit(tiny(LONG))
    assert (result.rollbacks, result.images) == (1, 96)
    assert math.isfinite(result.bits_per_dim)
    run = tmp_path / "tiny"
    assert_all_finite(run)

    (alarm,) = rows(run, "alarm")
    assert alarm == {
        "kind": "alarm",
        "event": "rollback",
        "step": 6,  # the last checkpoint before it, at 24 images
        "images": 24,
        "reason": "10 steps in a row had an objective or a gradient that is not finite",
        "module": MODULE,
        "found": f"first not finite: the output of {MODULE}",
        "from_step": 17,
        "from_images": 68,
        "rollbacks": 1,
        "lr_scale": 0.5,
    }
    steps = [row["step"] for row in rows(run)]
    assert steps == sorted(steps)
    train = rows(run, "train")
    assert [row["images"] for row in train] == list(range(4, 100, 4))
    assert [row["rollbacks"] for row in train] == [0] * 6 + [1] * 18
    assert sum(row["skipped"] for row in train) == 0  # those steps were taken back
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "alarm at step 17 (68 images): 10 steps in a row had an objective or a gradient that is "
        f"not finite; first not finite: the output of {MODULE}. Back at step 6 (24 images) with "
        "0.5 of the learning rate; roll-back 1 of 2"
    ) in said


def test_a_roll_back_restores_everything_but_the_learning_rate(tiny, tmp_path, plant):
    """Step 7 after the roll-back is step 7 of a twin at half the learning rate."""
    fit(tiny(LONG, "name=plain"))
    plant(early)
    fit(tiny(LONG))
    log = rows(tmp_path / "tiny", "train")
    plain = rows(tmp_path / "plain", "train")
    for name in ("nll", "kl_per_group", "objective", "grad_norm", "clip_norm"):
        assert log[6][name] == plain[6][name]
    assert log[6]["lr"] == plain[6]["lr"] / 2
    assert log[7]["nll"] != plain[7]["nll"]


def test_before_the_first_checkpoint_a_run_starts_over(tiny, tmp_path, plant):
    plant(lambda stepper: stepper.steps >= 2 and stepper.guard.rollbacks == 0)
    result = fit(tiny(LONG, "train.checkpoint_every=1000"))
    (alarm,) = rows(tmp_path / "tiny", "alarm")
    assert (alarm["step"], alarm["from_step"], result.rollbacks) == (0, 11, 1)
    assert [row["step"] for row in rows(tmp_path / "tiny", "train")] == list(range(1, 25))


@pytest.mark.parametrize("every", [8, 1000])
def test_a_module_that_is_always_nan_ends_the_run_by_its_name(tiny, tmp_path, plant, every):
    plant(lambda stepper: stepper.steps >= 8)
    with pytest.raises(TrainingError) as caught:
        fit(tiny(LONG, f"train.checkpoint_every={every}"))
    run = tmp_path / "tiny"
    assert str(caught.value) == (
        "training diverged for good at step 17 (68 images): 10 steps in a row had an objective or "
        f"a gradient that is not finite; first not finite: the output of {MODULE}. It was rolled "
        f"back 2 times; the last good state is in {run}. Begin anew with name=... and a lower "
        "train.lr or a longer train.warmup_images; docs/stability.md says what to look at first"
    )
    alarms = rows(run, "alarm")
    assert [row["event"] for row in alarms] == ["rollback", "rollback", "stopped"]
    assert [row.get("lr_scale") for row in alarms] == [0.5, 0.25, None]
    assert (alarms[-1]["step"], alarms[-1]["module"]) == (17, MODULE)
    assert_all_finite(run)
    before = tensors(run)
    with pytest.raises(TrainingError, match="diverged for good at step 17"):
        fit(tiny(LONG, f"train.checkpoint_every={every}"))  # the same command again
    assert [row["event"] for row in rows(run, "alarm")] == ["rollback", "rollback", "stopped"]
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors(run).items())


def test_more_roll_backs_may_be_allowed_to_a_run_that_ended(tiny, tmp_path, plant):
    plant(lambda stepper: stepper.steps >= 8 and stepper.guard.rollbacks < 3)
    with pytest.raises(TrainingError):
        fit(tiny(LONG))
    result = fit(tiny(LONG, "train.guard.max_rollbacks=3"))
    assert result.rollbacks == 3
    assert rows(tmp_path / "tiny", "train")[-1]["lr"] > 0


def test_the_command_line_ends_with_1_and_one_line(config_file, tmp_path, plant):
    plant(lambda stepper: True)
    result = CliRunner().invoke(app, ["train", str(config_file), LONG])
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("hvae: training diverged for good at step 10 (40 images): 10 steps")
    assert MODULE in last
    assert result.stdout == ""


def test_the_command_line_says_that_a_run_was_rolled_back(config_file, tmp_path, plant):
    plant(early)
    result = CliRunner().invoke(app, ["train", str(config_file), LONG, "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["rollbacks"] == 1
    assert result.stderr.splitlines()[-1] == (
        "training diverged and was rolled back once; see the rows of kind alarm in "
        f"{tmp_path / 'tiny' / 'metrics.jsonl'}"
    )


def test_one_bad_step_is_left_out_and_no_more(tiny, tmp_path, plant):
    plant(lambda stepper: stepper.steps == 8)
    result = fit(tiny(LONG))
    assert result.rollbacks == 0
    assert rows(tmp_path / "tiny", "alarm") == []
    assert [row["step"] for row in rows(tmp_path / "tiny", "train") if row["skipped"]] == [8]


def spoil_likelihood(monkeypatch: pytest.MonkeyPatch, calls: Callable[[int], bool]) -> None:
    """Makes -ln p(x | z) NaN for the second image of the training calls that are picked."""
    forward, count = HVAE.forward, 0

    def spoiled(self: HVAE, *args: Any, **kwargs: Any) -> Elbo:
        nonlocal count
        elbo = forward(self, *args, **kwargs)
        if not self.training:
            return elbo
        count += 1
        return (
            elbo._replace(nll=elbo.nll.where(elbo.nll != elbo.nll[1], math.nan))
            if (calls(count))
            else elbo
        )

    monkeypatch.setattr(HVAE, "forward", spoiled)


def test_a_likelihood_that_is_nan_once_costs_one_step(tiny, tmp_path, monkeypatch):
    spoil_likelihood(monkeypatch, lambda call: call == 5)
    assert fit(tiny()).rollbacks == 0
    row = rows(tmp_path / "tiny", "train")[4]
    assert (row["step"], row["skips"], row["skipped"]) == (5, 1, 1.0)


def test_a_likelihood_that_is_always_nan_ends_the_run_by_its_name(tiny, tmp_path, monkeypatch):
    spoil_likelihood(monkeypatch, lambda call: True)
    with pytest.raises(TrainingError) as caught:
        fit(tiny(LONG))
    assert "step 10 (40 images)" in str(caught.value)
    assert "-ln p(x | z) of the likelihood (of images 1 in a batch of 4)" in str(caught.value)
    assert rows(tmp_path / "tiny", "alarm")[-1]["module"] == "likelihood"


def test_weights_that_are_not_finite_are_never_written(tiny, tmp_path, monkeypatch):
    """As an update that overflows leaves them: the gradient was finite."""
    take = Stepper.step

    def step(self: Stepper, x: Tensor, **given: int) -> StepReport:
        report = take(self, x, **given)
        if self.steps == 12 and self.guard.rollbacks == 0:
            with torch.no_grad():
                self.model.decoder.blocks[0].z_proj.weight[0] = math.inf
        return report

    monkeypatch.setattr(Stepper, "step", step)
    assert fit(tiny(LONG)).rollbacks == 1
    assert_all_finite(tmp_path / "tiny")
    (alarm,) = rows(tmp_path / "tiny", "alarm")
    assert (alarm["step"], alarm["from_step"]) == (10, 12)
    assert alarm["module"] == "decoder.blocks.0.z_proj"
    assert alarm["found"] == ("first not finite: the tensor model: decoder.blocks.0.z_proj.weight")


def test_weights_that_spoil_at_the_end_do_not_end_the_run(tiny, tmp_path, monkeypatch):
    take = Stepper.step

    def step(self: Stepper, x: Tensor, **given: int) -> StepReport:
        report = take(self, x, **given)
        if self.steps == 8 and self.guard.rollbacks == 0:
            self.ema.tensors["decoder.gain"].fill_(math.nan)
        return report

    monkeypatch.setattr(Stepper, "step", step)
    result = fit(tiny())
    assert (result.rollbacks, result.images) == (1, 30)
    assert_all_finite(tmp_path / "tiny")


def spoil_scores(monkeypatch: pytest.MonkeyPatch, when: Callable[[int], bool]) -> None:
    forward, count = HVAE.forward, 0

    def spoiled(self: HVAE, *args: Any, **kwargs: Any) -> Elbo:
        nonlocal count
        elbo = forward(self, *args, **kwargs)
        count += not self.training
        bad = not self.training and when(count)
        return elbo._replace(elbo=elbo.elbo * math.nan) if bad else elbo

    monkeypatch.setattr(HVAE, "forward", spoiled)


def test_a_score_on_the_way_that_is_not_finite_is_an_alarm_and_changes_nothing(
    tiny, tmp_path, monkeypatch
):
    fit(tiny("name=plain"))
    spoil_scores(monkeypatch, lambda count: count <= 2)  # the first score, and the search
    fit(tiny())
    (alarm,) = rows(tmp_path / "tiny", "alarm")
    assert (alarm["event"], alarm["step"]) == ("evaluation", 3)
    assert "image 0 of shapes test has an ELBO of nan nats" in alarm["reason"]
    rest = [row for row in without_times(tmp_path / "tiny") if row["kind"] != "alarm"]
    plain = without_times(tmp_path / "plain")
    assert rest == [row for row in plain if (row["kind"], row["step"]) != ("eval", 3)]


def test_a_final_score_that_is_not_finite_is_a_failure(tiny, tmp_path, monkeypatch):
    spoil_scores(monkeypatch, lambda count: True)
    with pytest.raises(TrainingError, match=r"^the run has no score at step 8 \(30 images\): "):
        fit(tiny())
    assert [row["event"] for row in rows(tmp_path / "tiny", "alarm")] == ["evaluation"] * 2 + [
        "stopped"
    ]


# Which of them ends the run first, rounding decides: the two sets of kernels differ.
DIVERGENCES = (
    "10 steps in a row had an objective or a gradient that is not finite",
    "20 steps in a row had an objective above 8 bits/dim",
)
HUNDREDFOLD = ("train.lr=1.0", "train.guard.max_above_uniform=20", "train.images=158")


def test_a_learning_rate_a_hundred_times_too_high_is_halved_until_the_run_learns(tiny, tmp_path):
    result = fit(tiny(*HUNDREDFOLD, "train.guard.max_rollbacks=9"))
    alarms = rows(tmp_path / "tiny", "alarm")
    assert len(alarms) == result.rollbacks > 0
    assert all(alarm["reason"].startswith(DIVERGENCES) for alarm in alarms)
    assert math.isfinite(result.bits_per_dim)
    assert_all_finite(tmp_path / "tiny")


def test_a_learning_rate_a_hundred_times_too_high_ends_a_run_that_may_not_go_back(tiny, tmp_path):
    with pytest.raises(TrainingError) as caught:
        fit(tiny(*HUNDREDFOLD, "train.guard.max_rollbacks=0"))
    (alarm,) = rows(tmp_path / "tiny", "alarm")
    assert alarm["event"] == "stopped"
    assert alarm["reason"].startswith(DIVERGENCES)
    assert 10 < alarm["step"] <= 30
    assert alarm["module"]
    said = str(caught.value)
    assert f"diverged for good at step {alarm['step']} " in said
    assert alarm["reason"] in said
    assert alarm["found"] in said


@pytest.mark.parametrize("stop_after", [[7], [9], [13, 14, 15], [17], [18], [22]])
def test_a_run_that_is_stopped_around_its_roll_back_ends_with_the_same_bits(
    tiny, tmp_path, plant, monkeypatch, stop_after
):
    plant(early)
    settings = (LONG, "train.keep_last=1", "train.objective.spectral=0.1")
    fit(tiny(*settings, "name=whole"))
    take, left = Stepper.step, list(stop_after)

    def step(self: Stepper, x: Tensor, **given: int) -> StepReport:
        if left and self.steps + 1 == left[0]:
            left.pop(0)
            os.kill(os.getpid(), signal.SIGTERM)
        return take(self, x, **given)

    monkeypatch.setattr(Stepper, "step", step)
    stops = 0
    while fit(tiny(*settings)).stopped:
        stops += 1
    assert stops == len(stop_after)
    whole, run = tmp_path / "whole", tmp_path / "tiny"
    assert without_times(run) == without_times(whole)
    expected, found = tensors(whole), tensors(run)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    states = [checkpoint.read_state(checkpoint.latest_checkpoint(r)) for r in (whole, run)]
    for state in states:
        state.pop("config")
        for measured in ("seconds", "wait"):
            state["meter"]["sums"].pop(measured, None)
    assert states[0] == states[1]


def test_an_alarm_that_a_kill_cut_off_is_written_again(tiny, tmp_path, plant):
    plant(early)
    fit(tiny(LONG))
    run = tmp_path / "tiny"
    whole = rows(run)
    folder = checkpoint.latest_checkpoint(run)
    alarm_at = next(i for i, row in enumerate(whole) if row["kind"] == "alarm")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:alarm_at]))
    fit(tiny(LONG, "train.keep_last=2", "train.log_every=4"))
    assert rows(run)[-1] == whole[alarm_at]
    assert checkpoint.latest_checkpoint(run) == folder


def test_a_checkpoint_of_an_earlier_version_is_itself_the_good_state():
    assert Recovery.of({"step": 12}) == Recovery(good_step=12)
    kept = Recovery(3, ({"kind": "alarm"},))
    assert Recovery.of({"recovery": json.loads(json.dumps(kept.state_dict()))}) == kept


def test_a_good_checkpoint_that_is_gone_is_named(tmp_path):
    with pytest.raises(UserError, match=r"step-99: this checkpoint is gone"):
        checkpoint.rewind(tmp_path / "tiny", 99)
