"""Run folders and checkpoints: safetensors and JSON, committed by rename; no pickle anywhere.

    runs/<name>/config.yaml  metrics.jsonl  samples/  latest
    runs/<name>/checkpoints/step-<n>/{model,ema,optim}.safetensors  state.json

A checkpoint is written to a temporary folder, synced and renamed, and only then named in `latest`,
so that a kill at any moment leaves the previous one in force.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hvae.errors import UserError
from hvae.models import HVAE, ModelConfig

_CHECKPOINTS = "checkpoints"
_LATEST = "latest"
_STATE = "state.json"


def load(
    run_or_checkpoint: str | Path, *, device: torch.device | str | None = None, ema: bool = True
) -> HVAE:
    """Returns the trained model of a run, in evaluation mode.

    Args:
        run_or_checkpoint: a run folder (its latest checkpoint), a checkpoint folder, or a
            `.safetensors` file with the model's `config.json` beside it.
        device: where to put it. None: the CPU.
        ema: averaged weights; False gives the raw ones (not for a single file).

    Raises:
        UserError: if there is no such thing, it cannot be read, or tensors are missing or have
            other shapes than the configuration says; which ones.
    """
    path = Path(run_or_checkpoint)
    if path.suffix == ".safetensors":
        weights, config = path, path.with_name("config.json")
        settings = read_json(config)
    else:
        checkpoint = find_checkpoint(path)
        weights = checkpoint / ("ema.safetensors" if ema else "model.safetensors")
        settings = read_state(checkpoint)["config"]["model"]
    try:
        model = HVAE(ModelConfig.model_validate(settings))
    except ValidationError as error:
        raise UserError(f"{path}: its model configuration is not valid: {error}") from None
    tensors = read_tensors(weights)
    check_tensors(tensors, model.state_dict(), weights)
    model.load_state_dict(tensors)
    return model.to(device or "cpu").eval()


def find_checkpoint(path: Path) -> Path:
    """Returns the checkpoint folder for a run folder (its latest) or a checkpoint folder.

    Raises:
        UserError: if there is none.
    """
    if (path / _STATE).is_file():
        return path
    checkpoint = latest_checkpoint(path)
    if checkpoint is None:
        found = "no such folder" if not path.exists() else "no checkpoint in it"
        raise UserError(
            f"{path}: {found}; wanted a run folder, a checkpoint folder or a .safetensors file"
        )
    return checkpoint


def latest_checkpoint(run: Path) -> Path | None:
    """Returns the newest complete checkpoint of a run folder, or None.

    Raises:
        UserError: if the run's `latest` names a checkpoint that is gone.
    """
    pointer = run / _LATEST
    if not pointer.is_file():
        return None
    checkpoint = run / _CHECKPOINTS / pointer.read_text(encoding="utf-8").strip()
    if not (checkpoint / _STATE).is_file():
        raise UserError(f"{pointer} names {checkpoint.name}, which is not in {checkpoint.parent}")
    return checkpoint


def save(
    run: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    *,
    keep_last: int,
    keep: int | None = None,
) -> Path:
    """Commits a checkpoint and returns its folder; older ones beyond `keep_last` are removed.

    Saved again, the step that is in force keeps its tensors, and its state is replaced.

    Args:
        run: the run folder.
        step: names the checkpoint.
        tensors: tensors by file stem.
        state: the rest, JSON values; sha256 of each file is added.
        keep_last: how many checkpoints to keep, this one included.
        keep: step of an older one that is kept whatever its age.
    """
    folder = run / _CHECKPOINTS / f"step-{step}"
    if latest_checkpoint(run) == folder:
        # A folder cannot be exchanged in one move; a kill between two would leave none in force.
        hashes = read_state(folder)["sha256"]
        write_text(folder / _STATE, json.dumps({**state, "sha256": hashes}, indent=1))
        return folder
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    hashes = {}
    for stem, named in tensors.items():
        file = temporary / f"{stem}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in named.items()}, file)
        hashes[file.name] = _sha256(file)
        _sync(file)
    write_text(temporary / _STATE, json.dumps({**state, "sha256": hashes}, indent=1))
    _sync(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    _sync(folder.parent)
    write_text(run / _LATEST, folder.name + "\n")
    _prune(folder, keep_last, keep)
    return folder


def rewind(run: Path, step: int) -> Path:
    """Puts an older checkpoint of a run in force again, removes newer ones, returns its folder.

    Raises:
        UserError: if it is gone.
    """
    folder = run / _CHECKPOINTS / f"step-{step}"
    if not (folder / _STATE).is_file():
        raise UserError(f"{folder}: this checkpoint is gone, and the run has to go back to it")
    write_text(run / _LATEST, folder.name + "\n")
    for newer in _newer(folder):
        shutil.rmtree(newer)
    return folder


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Returns a checkpoint's `state.json`."""
    return read_json(checkpoint / _STATE)


def read_json(file: Path) -> dict[str, Any]:
    """Returns a JSON object; UserError if the file is missing or is not one."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{file}: cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{file}: wanted a JSON object, got {type(values).__name__}")
    return values


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file, on the CPU.

    Raises:
        UserError: if it is missing, truncated or otherwise unreadable.
    """
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        size = f"{file.stat().st_size} bytes" if file.exists() else "missing"
        raise UserError(f"{file} ({size}): not a readable safetensors file: {error}") from None


def check_tensors(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], file: Path) -> None:
    """Raises UserError unless names and shapes agree; says which tensors do not."""
    problems = [f"{name} is missing" for name in wanted.keys() - tensors.keys()]
    problems += [f"{name} is not part of the model" for name in tensors.keys() - wanted.keys()]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, wanted {tuple(wanted[name].shape)}"
        for name in wanted.keys() & tensors.keys()
        if tensors[name].shape != wanted[name].shape
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(f"{file}: does not fit its configuration: {shown}{more}")


def write_text(file: Path, text: str) -> None:
    """Writes a file whole or not at all: to a temporary name, synced, then renamed."""
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    _sync(temporary)
    temporary.rename(file)


def _prune(newest: Path, keep_last: int, keep: int | None) -> None:
    step = int(newest.name.removeprefix("step-"))
    older = sorted((n, folder) for n, folder in _numbered(newest.parent) if n <= step)
    # Checkpoints ahead of the newest belong to a run that was rewound; they are stale too.
    stale = _newer(newest)
    stale += [folder for n, folder in older[:-keep_last] if n != keep]
    stale += newest.parent.glob(".step-*.tmp")  # of saves that were killed
    for folder in stale:
        shutil.rmtree(folder)


def _newer(checkpoint: Path) -> list[Path]:
    step = int(checkpoint.name.removeprefix("step-"))
    return [folder for n, folder in _numbered(checkpoint.parent) if n > step]


def _numbered(checkpoints: Path) -> list[tuple[int, Path]]:
    return [(int(f.name.removeprefix("step-")), f) for f in checkpoints.glob("step-*")]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Flushes a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
