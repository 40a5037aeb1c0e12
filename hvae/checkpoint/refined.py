"""The refiner of a run, in `RUN/refine/`: checkpoints of their own, beside those of the model."""

import warnings
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hvae.checkpoint.folder import CHECKPOINTS, newest_complete
from hvae.checkpoint.state import read_state
from hvae.checkpoint.tensors import check_finite, check_tensors, read_tensors
from hvae.errors import UserError
from hvae.files import sha256
from hvae.models import HVAE
from hvae.models.refiner import Refiner, RefinerConfig

REFINE, PRIOR = "refine", "prior"
AVERAGE = "ema.safetensors"


def refine_folder(weights: Path) -> Path | None:
    """Returns where the refiner of a weights file lies, or would; None for a file by itself."""
    checkpoints = weights.resolve().parent.parent
    return checkpoints.parent / REFINE if checkpoints.name == CHECKPOINTS else None


def load_refiner(weights: Path, model: HVAE) -> Refiner | None:
    """Returns the averaged refiner of a model, in evaluation mode; None if it has none.

    One that was trained on other weights is left out with a warning: it corrects states that these
    do not have.

    Args:
        weights: the file that `model` was read from.
        model: it is only looked at.

    Raises:
        UserError: the refiner is damaged, or none that fits the model.
    """
    folder = refine_folder(weights)
    if folder is None or not (folder / CHECKPOINTS).is_dir():
        return None
    found = newest_complete(folder, only=(AVERAGE,))
    if found.checkpoint is None:
        if found.damaged:
            raise UserError(f"{folder}: no checkpoint of the refiner is complete; {found}")
        return None
    state = read_state(found.checkpoint)
    if state.get("base") != sha256(weights):
        warnings.warn(
            f"{folder} was trained on other weights than {weights}; images are not refined",
            stacklevel=2,
        )
        return None
    refiner = _made(state, found.checkpoint, model)
    file = found.checkpoint / AVERAGE
    tensors = read_tensors(file)
    check_tensors(tensors, refiner.state_dict(), file)
    check_finite(tensors, file)
    refiner.load_state_dict(tensors)
    return refiner.to(model.device).eval().requires_grad_(False)


def _made(state: dict[str, Any], checkpoint: Path, model: HVAE) -> Refiner:
    config = state.get("config")
    settings = config.get("refiner") if isinstance(config, dict) else None
    try:
        return Refiner(RefinerConfig.model_validate(settings), model.config)
    except ValidationError as error:
        raise UserError(f"{checkpoint}: its configuration is not valid: {error}") from None
