"""A checkpoint read and checked as a whole, before a run is changed by any of it."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from hvae import checkpoint
from hvae.errors import UserError
from hvae.training.optim import wanted_optimizer_tensors
from hvae.training.step import Stepper

_Count = Annotated[int, Field(ge=0, lt=2**53)]


class _Part(BaseModel):
    """Strict, since the values are used as they are; open, since earlier versions held others."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Guard(_Part):
    norms: list[float]
    skips_in_row: _Count
    nonfinite_in_row: _Count
    skips: _Count
    above_uniform_in_row: _Count = 0
    above_uniform: bool = False
    rollbacks: _Count = 0


class _Meter(_Part):
    counts: dict[str, Annotated[int, Field(ge=1, lt=2**53)]]
    sums: dict[str, float | list[float]]


class _Alarm(_Part):
    kind: str
    event: str
    step: _Count


class _Recovery(_Part):
    good_step: _Count | None
    alarms: list[_Alarm]


class _Score(_Part):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    step: _Count
    bits_per_dim: float
    num_images: _Count


class _Best(_Part):
    model_config = ConfigDict(extra="forbid")
    now: _Score | None
    at_good: _Score | None


class _Result(_Part):
    bits_per_dim: float
    importance_bits_per_dim: float | None
    num_images: _Count


class _State(_Part):
    """What a run reads of a `state.json`."""

    step: _Count
    images: _Count
    ema_updates: _Count
    guard: _Guard
    meter: _Meter
    result: _Result | None
    recovery: _Recovery | None = None
    best: _Best | None = None
    log_rows: _Count | None = None


def read_checkpoint(
    folder: Path, stepper: Stepper
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Returns the tensors, by file, and the state of a checkpoint that fits a run.

    Args:
        folder: of the checkpoint, complete and unchanged.
        stepper: of the run; only looked at.

    Raises:
        UserError: if a tensor is missing, unknown, not finite, or of another shape or dtype than
            the run's, or a value of the state is none that a run saves; which one.
    """
    state = checkpoint.read_state(folder)
    _check_state(state, folder)
    tensors = {}
    for stem, own in stepper.tensors().items():
        file = folder / f"{stem}.safetensors"
        found = checkpoint.read_tensors(file)
        if stem == "optim":
            own = wanted_optimizer_tensors(stepper.model, stepper.optimizer, found)
        checkpoint.check_tensors(found, own, file)
        checkpoint.check_finite(found, file)
        tensors[stem] = found
    return tensors, state


def _check_state(state: dict[str, Any], folder: Path) -> None:
    file = folder / "state.json"
    try:
        values = _State.model_validate(state)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, first["loc"]))
        got = repr(first["input"])
        got = got if len(got) <= 60 else f"{got[:60]}..."
        raise UserError(f"{file}: no state of a run: {key}: {first['msg']}, got {got}") from None
    if folder.name != f"step-{values.step}":
        raise UserError(f"{file}: is of step {values.step}, in a folder named {folder.name}")
