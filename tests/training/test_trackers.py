"""Trackers: copies of the log that repeat nothing and can neither stop nor change a run."""

import json
import math
import sys
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hvae import checkpoint
from hvae.errors import UserError
from hvae.training import fit
from hvae.training.step import Stepper
from hvae.training.trackers import scalars_of

ROW = {"kind": "train", "step": 3, "images": 12, "nll": 2.0, "lr": math.nan, "kl": None,
       "kl_per_group": [0.5, math.inf, 1.5], "clipped": 0.0}  # fmt: skip


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """A package named trackio that records its calls; what `failing` names raises."""
    calls: dict[str, list[Any]] = {"init": [], "log": [], "finish": [], "failing": []}

    class Run:
        def log(self, values: dict[str, Any], step: int) -> None:
            print("a line that must not reach stdout")
            if "log" in calls["failing"]:
                raise ConnectionError("the service\nis away")
            calls["log"].append((step, values))

        def finish(self) -> None:
            calls["finish"].append(())

    def init(**options: Any) -> Run:
        if "init" in calls["failing"]:
            raise ConnectionError("not logged in")
        calls["init"].append(options)
        return Run()

    module = ModuleType("trackio")
    module.__dict__.update(init=init, Image=lambda pixels: pixels)
    module.__spec__ = ModuleSpec("trackio", None)
    monkeypatch.setitem(sys.modules, "trackio", module)
    return calls


def weights(run: Path) -> bytes:
    folder = checkpoint.latest_checkpoint(run)
    assert folder is not None
    return (folder / "model.safetensors").read_bytes()


def test_rows_become_finite_scalars_with_groups_by_name():
    assert scalars_of(ROW, ["01_at_1", "02_at_4", "03_at_8"]) == {
        "train/nll": 2.0,
        "train/clipped": 0.0,
        "train_kl_per_group/01_at_1": 0.5,
        "train_kl_per_group/03_at_8": 1.5,
    }
    row = {"kind": "eval", "split": "test", "elbo_bits_per_dim": 3.0, "seed": 4, "dataset": "x"}
    assert scalars_of(row, []) == {"test/elbo_bits_per_dim": 3.0}


def test_a_missing_package_is_an_error_before_anything_is_written(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        fit(tiny("train.log_to=[tensorboard]"))
    assert str(caught.value) == (
        "train.log_to asks for tensorboard, but the package tensorboard is not installed: "
        "pip install 'hvae[tensorboard]', or leave tensorboard out; "
        "metrics.jsonl is written in any case"
    )
    assert not (tmp_path / "tiny").exists()


def test_one_tracker_needs_no_brackets_and_an_unknown_one_is_named(tiny):
    assert tiny("train.log_to=wandb").train.log_to == ("wandb",)
    with pytest.raises(UserError, match="'tensorboard', 'wandb' or 'trackio'"):
        tiny("train.log_to=[tensorbord]")


def test_a_service_gets_rows_sheets_and_the_configuration(tiny, service, capsys):
    fit(tiny("train.log_to=trackio"))
    assert [(o["project"], o["name"], o["resume"]) for o in service["init"]] == [
        ("hvae", "tiny", "allow")
    ]
    assert service["init"][0]["config"]["train"]["images"] == 30
    steps = [step for step, _ in service["log"]]
    assert steps == sorted(steps)
    names = set().union(*(values for _, values in service["log"]))
    assert {"train/bits_per_dim", "test/elbo_bits_per_dim", "train/memory_mib"} <= names
    assert {"train_kl_per_group/01_at_4", "test_kl_per_group/02_at_8"} <= names
    assert {"sheets/samples", "sheets/reconstructions"} <= names
    assert len(service["finish"]) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("failing", ["init", "log"])
def test_a_service_that_fails_warns_once_and_changes_nothing(tiny, tmp_path, service, failing):
    plain = fit(tiny("name=plain"))
    service["failing"].append(failing)
    with pytest.warns(UserWarning, match=r"trackio failed and is given up for this run") as caught:
        watched = fit(tiny("train.log_to=trackio"))
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert watched.bits_per_dim == plain.bits_per_dim
    assert weights(tmp_path / "tiny") == weights(tmp_path / "plain")


def test_trackers_may_change_when_a_run_goes_on(tiny, service):
    fit(tiny("train.images=8"))
    fit(tiny("train.images=12", "train.log_to=trackio"))
    assert [step for step, values in service["log"] if "train/nll" in values] == [12]


def test_rows_that_a_resumed_run_repeats_are_not_sent_again(tiny, service, monkeypatch):
    take = Stepper.step

    def step_and_die(self: Stepper, *batch: Any, **given: int) -> Any:
        if self.images == 24:  # after the rows of 20 and 24; the last checkpoint is at 16
            raise KeyboardInterrupt
        return take(self, *batch, **given)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", step_and_die)
        with pytest.raises(KeyboardInterrupt):
            fit(tiny("train.log_to=trackio", "train.checkpoint_every=16"))
    fit(tiny("train.log_to=trackio", "train.checkpoint_every=16"))
    steps = [step for step, values in service["log"] if "train/nll" in values]
    assert steps == [4, 8, 12, 16, 20, 24, 28]


def test_a_finished_run_opens_no_tracker_again(tiny, service):
    fit(tiny("train.images=8", "train.log_to=trackio"))
    fit(tiny("train.images=8", "train.log_to=trackio"))
    assert len(service["init"]) == 1


def tensorboard_points(run: Path) -> dict[str, list[int]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {tag: [e.step for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_points_of_a_killed_run_are_not_repeated_by_tensorboard(tiny, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    take = Stepper.step

    def step_and_die(self: Stepper, *batch: Any, **given: int) -> Any:
        if self.images == 20:  # the last checkpoint is at 16
            raise KeyboardInterrupt
        return take(self, *batch, **given)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", step_and_die)
        with pytest.raises(KeyboardInterrupt):
            fit(tiny("train.log_to=tensorboard"))
    fit(tiny("train.log_to=tensorboard"))
    points = tensorboard_points(tmp_path / "tiny")
    rows = map(json.loads, (tmp_path / "tiny" / "metrics.jsonl").read_text().splitlines())
    logged = [row["images"] for row in rows if row["kind"] == "train"]
    assert points["train/nll"] == logged == [4, 8, 12, 16, 20, 24, 28]
    assert points["train_kl_per_group/02_at_8"] == logged
    assert points["test/elbo_bits_per_dim"] == [12, 24, 30]


def test_tensorboard_shows_sheets(tiny, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(tiny("train.images=8", "train.log_to=tensorboard"))
    events = EventAccumulator(str(tmp_path / "tiny" / "tensorboard"))
    events.Reload()
    assert events.Tags()["images"] == ["sheets/reconstructions", "sheets/samples"]
