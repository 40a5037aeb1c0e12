"""Opens what the verbs on a trained run need: its model, its data, and what names its weights."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvae.errors import UserError

if TYPE_CHECKING:
    from hvae.data import ImageSource, Split
    from hvae.models import HVAE


def open_model(run: Path) -> "HVAE":
    """Returns a run's model with its averaged weights, on the first GPU if there is one."""
    import torch

    from hvae import checkpoint

    return checkpoint.load(run, device="cuda" if torch.cuda.is_available() else "cpu")


def open_data(run: Path, model: "HVAE", word: str | None, split: "Split") -> "ImageSource":
    """Returns a split of a DATA word, or of the run's own data, at the model's size.

    Raises:
        UserError: there is no such data, a bare weights file is given without a word, or the data
            does not say what a conditional model wants to know.
    """
    from hvae.data import DataConfig, complete_condition, open_source

    channels, *size = model.shape
    saved = _saved_data(run) if word is None else {"source": word}
    config = DataConfig.model_validate({**saved, "channels": channels, "size": size})
    source = open_source(config, split)
    complete_condition(model.config.condition, source)
    return source


def weights_record(run: Path) -> dict[str, str]:
    """Returns what names a run's averaged weights: the file and its sha256."""
    from hvae import checkpoint

    file = run if _is_file(run) else checkpoint.find_checkpoint(run) / "ema.safetensors"
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"checkpoint": str(file), "checkpoint_sha256": sha256}


def _saved_data(run: Path) -> dict[str, Any]:
    from hvae import checkpoint

    if _is_file(run):
        raise UserError(f"{run}: a weights file does not say what it was trained on; give --data")
    state = checkpoint.read_state(checkpoint.find_checkpoint(run))
    return dict(state["config"]["data"])


def _is_file(run: Path) -> bool:
    return run.suffix == ".safetensors"
