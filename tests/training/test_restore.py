"""A checkpoint is checked as a whole before a run is changed by any of it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hvae import checkpoint
from hvae.errors import UserError
from hvae.training import Config, fit
from hvae.training.restore import read_checkpoint
from hvae.training.step import Stepper
from tests.checkpoint.test_hostile import resign

Tiny = Callable[..., Config]


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    """The checkpoint of a run of two steps."""
    fit(tiny("train.images=8"))
    return tmp_path / "tiny" / "checkpoints" / "step-2"


def refusal(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the run says that would go on; it must not have taken anything over."""

    def load(*args: object) -> None:
        raise AssertionError("the run was changed")

    monkeypatch.setattr(Stepper, "load", load)
    with pytest.raises(UserError) as caught:
        fit(tiny("train.images=16"))
    return str(caught.value)


def first_moment(tensors: dict[str, Tensor]) -> str:
    return min(name for name in tensors if name.endswith(".exp_avg"))


CHANGES: dict[str, tuple[Callable[[Tensor], Tensor | None], str]] = {
    "a moment of another shape": (lambda t: t.new_zeros(3), r"is \(3,\), wanted \("),
    "a moment of another type": (lambda t: t.double(), "is torch.float64, wanted"),
    "no moment": (lambda t: None, "is missing"),
    "a moment of NaN": (lambda t: t * float("nan"), "holds numbers that are not finite"),
}


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES.keys())
def test_a_moment_that_does_not_fit_is_named(
    tiny: Tiny,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Tensor], Tensor | None],
    reason: str,
) -> None:
    file = folder / "optim.safetensors"
    tensors = load_file(file)
    name = first_moment(tensors)
    changed = change(tensors.pop(name))
    save_file(tensors if changed is None else {**tensors, name: changed}, file)
    resign(folder)
    message = refusal(tiny, monkeypatch)
    assert message.startswith(f"{file}: ")
    assert name in message
    assert re.search(reason, message)


def test_a_moment_of_no_parameter_is_named(
    tiny: Tiny, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "optim.safetensors"
    save_file({**load_file(file), "decoder.extra.exp_avg": torch.zeros(1)}, file)
    resign(folder)
    assert "decoder.extra.exp_avg is not part of the model" in refusal(tiny, monkeypatch)


@pytest.mark.parametrize("stem", ["model", "ema"])
def test_weights_that_do_not_fit_are_named(
    tiny: Tiny, folder: Path, monkeypatch: pytest.MonkeyPatch, stem: str
) -> None:
    file = folder / f"{stem}.safetensors"
    save_file({**load_file(file), "decoder.gain": torch.zeros(2)}, file)
    resign(folder)
    message = refusal(tiny, monkeypatch)
    assert message.startswith(f"{file}: does not fit its configuration: decoder.gain is (2,)")


@pytest.mark.parametrize("optimizer", ["adamax", "adamw"])
def test_what_a_run_saves_fits(tiny: Tiny, tmp_path: Path, optimizer: str) -> None:
    settings = (f"train.optimizer={optimizer}", "train.objective.spectral=0.1")
    fit(tiny("train.images=8", *settings))
    assert fit(tiny("train.images=12", *settings)).images == 12


def update(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value

    return change


STATES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a step of digits": (update("step", value=10**30), "step: Input should be less than"),
    "images of text": (update("images", value="x" * 10_000), "images: Input should be a valid int"),
    "a negative count": (update("ema_updates", value=-1), "ema_updates: Input should be greater"),
    "a fraction": (update("images", value=8.5), "images: Input should be a valid integer"),
    "no guard": (update("guard", value=None), "guard: Input should be a valid dictionary"),
    "norms of text": (update("guard", "norms", value=["x"]), "guard.norms.0: Input should be"),
    "a meter of lists": (update("meter", "counts", value=[]), "meter.counts: Input should be"),
    "a good step of text": (update("recovery", "good_step", value="../x"), "recovery.good_step"),
    "alarms that are none": (update("recovery", "alarms", value=[1]), "recovery.alarms.0"),
    "a result of text": (update("result", value="good"), "result: Input should be"),
    "a best of text": (update("best", "now", value="here"), "best.now: Input should be"),
    "rows without end": (update("log_rows", value=2**80), "log_rows: Input should be less"),
    "another step": (update("step", value=7), "is of step 7, in a folder named step-2"),
}


@pytest.mark.parametrize(("change", "reason"), STATES.values(), ids=STATES.keys())
def test_a_value_that_no_run_saves_is_named(
    tiny: Tiny,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, Any]], None],
    reason: str,
) -> None:
    resign(folder, change)
    message = refusal(tiny, monkeypatch)
    assert message.startswith(f"{folder / 'state.json'}: ")
    assert reason in message
    assert len(message) < 400


def test_a_state_of_an_earlier_version_is_taken(tiny: Tiny, folder: Path) -> None:
    def older(state: dict[str, Any]) -> None:
        for key in ("recovery", "best", "log_rows"):
            del state[key]
        for key in ("above_uniform", "above_uniform_in_row", "rollbacks"):
            del state["guard"][key]

    resign(folder, older)
    assert fit(tiny("train.images=16")).images == 16


def test_reading_changes_nothing(tiny: Tiny, folder: Path) -> None:
    config = tiny("train.images=8")
    state = checkpoint.read_state(folder)
    model = checkpoint.load(folder, ema=False)
    stepper = Stepper(model.train(), config.train, config.seed)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors, read = read_checkpoint(folder, stepper)
    assert read == state
    assert tensors.keys() == {"model", "ema", "optim"}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert stepper.steps == 0
    assert not any(stepper.optimizer.state.values())
