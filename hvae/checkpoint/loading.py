"""`hvae.load`: from a path that a user names to a model."""

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from hvae.checkpoint.files import read_json
from hvae.checkpoint.folder import BEST, LATEST, named_by, newest_complete
from hvae.checkpoint.refined import load_refiner
from hvae.checkpoint.state import STATE, damage, read_state
from hvae.checkpoint.tensors import check_finite, check_tensors, read_tensors
from hvae.errors import UserError
from hvae.models import HVAE, ModelConfig

_CONFIG = "config.json"
_WANTED = "wanted a run folder, a checkpoint folder or a .safetensors file"


def load(
    run_or_checkpoint: str | Path, *, device: torch.device | str | None = None, ema: bool = True
) -> HVAE:
    """Returns the trained model of a run, in evaluation mode, with its refiner if it has one.

    The newest complete checkpoint of a run is taken, with a warning if a newer one is damaged. One
    that is named itself has to be unchanged since it was saved.

    Args:
        run_or_checkpoint: a run folder (its latest checkpoint), its `best`, a checkpoint folder, or
            a `.safetensors` file with the model's `config.json` beside it.
        device: where to put it. None: the CPU.
        ema: averaged weights; False gives the raw ones (not for a single file).

    Raises:
        UserError: if there is no such thing, it is damaged, or tensors are missing, not finite, or
            have other shapes than the configuration says; which ones.
    """
    weights = find_weights(Path(run_or_checkpoint), ema=ema)
    model = load_weights(weights, device=device)
    if ema:
        model.refine_with(load_refiner(weights, model))
    return model


def find_weights(path: Path, *, ema: bool = True) -> Path:
    """Returns the weights file of what a user names, unchanged since it was saved.

    Raises:
        UserError: if there is none.
    """
    if path.suffix == ".safetensors":
        in_checkpoint = path.with_name(STATE).is_file() and not path.with_name(_CONFIG).is_file()
        return _undamaged(path.parent, (path.name,)) / path.name if in_checkpoint else path
    name = "ema.safetensors" if ema else "model.safetensors"
    return find_checkpoint(path, only=(name,)) / name


def load_weights(weights: Path, *, device: torch.device | str | None = None) -> HVAE:
    """Returns the model of a weights file, in evaluation mode.

    Its configuration stands beside it: `config.json`, or the state of a checkpoint.

    Raises:
        UserError: if one of them cannot be read, or they do not fit each other.
    """
    settings = _model_settings(weights)
    tensors = read_tensors(weights)
    try:
        config = ModelConfig.model_validate(settings)
        with torch.device("meta"):  # a configuration may ask for any amount of memory
            wanted = HVAE(config).state_dict()
    except ValidationError as error:
        raise UserError(f"{weights}: its model configuration is not valid: {error}") from None
    check_tensors(tensors, wanted, weights)
    check_finite(tensors, weights)
    model = HVAE(config)
    model.load_state_dict(tensors)
    return model.to(device or "cpu").eval()


def find_checkpoint(path: Path, *, only: Collection[str] | None = None) -> Path:
    """Returns the checkpoint folder of what a user names, complete and unchanged.

    Args:
        path: a run folder (its newest complete checkpoint, with a warning if a newer one is
            damaged), its `latest` or `best`, or a checkpoint folder.
        only: names of the files that will be read. None: all.

    Raises:
        UserError: if there is none, or a checkpoint that was named itself is damaged.
    """
    if path.name == BEST and not path.is_dir():
        return _undamaged(_best(path), only)
    if (path / STATE).is_file():
        return _undamaged(path, only)
    run = path.parent if path.name == LATEST and path.is_file() else path
    found = newest_complete(run, only=only)
    if found.checkpoint is None:
        if found.damaged:
            raise UserError(f"{run}: no checkpoint of it is complete; {found}")
        there = "no checkpoint in it" if path.is_dir() else "no such folder"
        raise UserError(f"{path}: {there}; {_WANTED}")
    if found.damaged:
        warnings.warn(f"{run}: {found}. Using {found.checkpoint.name}", stacklevel=2)
    return found.checkpoint


def _undamaged(checkpoint: Path, only: Collection[str] | None) -> Path:
    if reason := damage(checkpoint, only):
        raise UserError(f"{checkpoint}: this checkpoint is damaged: {reason}")
    return checkpoint


def _best(pointer: Path) -> Path:
    checkpoint = named_by(pointer)
    if checkpoint is None:
        raise UserError(f"{pointer}: no such file; a run with train.keep_best=true has one")
    return checkpoint


def _model_settings(weights: Path) -> dict[str, Any]:
    """The model's configuration, unchecked; one that a user put beside the file comes first."""
    config = weights.with_name(_CONFIG)
    if config.is_file() or not weights.with_name(STATE).is_file():
        return read_json(config)
    saved = read_state(weights.parent).get("config")
    if not isinstance(saved, dict) or not isinstance(saved.get("model"), dict):
        raise UserError(f"{weights.with_name(STATE)}: holds no configuration of a model")
    return dict(saved["model"])
