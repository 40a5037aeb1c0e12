"""Checkpoint files of the published VDVAE: into run folders, and out of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hvae import checkpoint
from hvae.errors import UserError
from hvae.models import HVAE
from hvae.models.vdvae import Structure, differences, load_published, to_published
from hvae.training.build import sized
from hvae.training.config import Config
from hvae.training.config_file import list_configs, load_config, make_config
from hvae.training.metrics_log import Meter
from hvae.training.run_folder import RunFolder
from hvae.training.step import Stepper

_PRESET_FOLDER = "vdvae/"


def presets() -> list[str]:
    """Returns the names of the published models: the shipped configurations under `vdvae/`."""
    names = (name for name, _ in list_configs())
    return [n.removeprefix(_PRESET_FOLDER) for n in names if n.startswith(_PRESET_FOLDER)]


def read_published(file: Path) -> dict[str, Tensor]:
    """Returns the tensors of a published checkpoint, `module.` stripped from their names.

    Nothing but tensors is unpickled (`weights_only`); a .safetensors file is read as such.

    Raises:
        UserError: if the file is missing, unreadable, or not a flat dictionary of tensors.
    """
    if file.suffix == ".safetensors":
        return _without_prefix(checkpoint.read_tensors(file))
    if not file.is_file():
        raise UserError(f"{file}: no such file; wanted a VDVAE checkpoint such as *-model-ema.th")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes torch's reader raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{file}: cannot be read as a dictionary of tensors: {reason}") from None
    if not isinstance(content, Mapping):
        raise UserError(f"{file}: wanted a dictionary of tensors, got a {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(
                f"{file}: wanted a dictionary of tensors, but {name!r} is a {type(value).__name__}"
                + (" (an optimiser's state?)" if name in ("state", "param_groups") else "")
            )
    return _without_prefix(content)


def preset_config(
    tensors: Mapping[str, Tensor], preset: str | None, overrides: Sequence[str] = ()
) -> Config:
    """Returns a published model's configuration; without a name, that of the one that fits.

    Raises:
        UserError: if the preset is unknown, the tensors do not fit it, or no preset fits.
    """
    known = presets()
    if preset is not None and preset not in known:
        raise UserError(f"no preset {preset!r}; there are {', '.join(known)}")
    problems: dict[str, list[str]] = {}
    for name in known if preset is None else [preset]:
        config = sized(load_config(_PRESET_FOLDER + name, overrides))
        with torch.device("meta"):
            problems[name] = differences(tensors, HVAE(config.model))
        if not problems[name]:
            return config
    nearest = min(problems, key=lambda name: len(problems[name]))
    reasons = "; ".join(problems[nearest])
    if preset is not None:
        raise UserError(f"the checkpoint does not fit preset {preset}: {reasons}")
    raise UserError(
        f"the checkpoint fits no preset (of {nearest} it differs so: {reasons}); give its layout "
        "with --layout ENCODER DECODER"
    )


def layout_config(
    tensors: Mapping[str, Tensor], encoder: str, decoder: str, overrides: Sequence[str] = ()
) -> Config:
    """Returns the configuration of a layout, completed by what the tensors tell.

    Raises:
        UserError: if the layout is not one, or an override is wrong.
    """
    model = Structure.of(tensors).config(encoder, decoder)
    values: dict[str, Any] = {
        "data": {"source": "unknown", "size": model.size, "channels": model.channels},
        "model": model.model_dump(exclude_defaults=True) | {"preset": "vdvae"},
    }
    return sized(make_config("vdvae", values, overrides))


def import_vdvae(tensors: Mapping[str, Tensor], config: Config, run: Path) -> HVAE:
    """Writes a run folder with published tensors, at 0 images trained, and returns its model.

    Raises:
        UserError: if tensors and configuration differ, or the folder holds a run already; nothing
            is written then.
    """
    values = config.model_dump(exclude={"name"}) | {"runs_dir": str(run.parent)}
    config = make_config(run.name, values)
    with torch.device("meta"):
        model = HVAE(config.model)
    if problems := differences(tensors, model):
        raise UserError(f"checkpoint and layout differ: {'; '.join(problems)}")
    if checkpoint.has_checkpoints(run):
        raise UserError(f"{run}: holds a run already; choose another folder")
    model = HVAE(config.model)
    load_published(model, tensors)
    folder = RunFolder(config)
    with folder.locked():
        folder.begin(config)
        folder.save(config, Stepper(model, config.train, config.seed), Meter(), None)
    return model.eval()


def export_vdvae(model: HVAE, file: Path) -> dict[str, Tensor]:
    """Writes a model's tensors under the published names and returns them.

    A .safetensors file is written as such; anything else in the published form, by `torch.save`.

    Raises:
        UserError: if the model is not of the published family, or the file cannot be written.
    """
    tensors = to_published(model)
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        if file.suffix == ".safetensors":
            save_file(tensors, temporary)
        else:
            torch.save(tensors, temporary)
        temporary.replace(file)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{file}: cannot be written: {error}") from None
    return tensors


def _without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as they were before DistributedDataParallel put `module.` in front."""
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
