"""Opens what the verbs on a trained run need: its model, its data, and what names its weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvae.errors import UserError
from hvae.files import sha256

if TYPE_CHECKING:
    from hvae.data import DataConfig, ImageSource, Split
    from hvae.models import HVAE


def open_model(run: Path, *, refined: bool | None = False) -> tuple["HVAE", Path]:
    """Returns a run's model with its averaged weights, on the first GPU, and their file.

    With its refiner too: if `refined` is True, or None and there is one.

    What else a verb wants to know of the run it asks by that file: a run in training may commit
    another checkpoint meanwhile.
    """
    import torch

    from hvae import checkpoint

    weights = checkpoint.find_weights(run)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = checkpoint.load_weights(weights, device=device)
    if refined is not False:
        model.refine_with(checkpoint.load_refiner(weights, model))
    if refined and model.refiner is None:
        raise UserError(f"--refined: {run} has no refiner for these weights; run hvae refine first")
    return model, weights


def open_data(weights: Path, model: "HVAE", word: str | None, split: "Split") -> "ImageSource":
    """Returns a split of a DATA word, or of the data of the weights' run, at the model's size.

    Raises:
        UserError: there is no such data, a bare weights file is given without a word, or the data
            does not say what a conditional model wants to know.
    """
    from hvae.data import complete_condition, open_source

    source = open_source(data_config(weights, model, word), split)
    complete_condition(model.config.condition, source)
    return source


def data_config(weights: Path, model: "HVAE", word: str | None) -> "DataConfig":
    """Returns how a DATA word, or the data of the weights' run, is read at the model's size.

    Raises:
        UserError: a bare weights file is given without a word, or its run says nothing sensible.
    """
    channels, *size = model.shape
    saved = saved_data(weights) if word is None else {"source": word}
    owner = str(weights.parent) if word is None else word
    return valid_data({**saved, "channels": channels, "size": size}, owner)


def valid_data(values: dict[str, Any], owner: str) -> "DataConfig":
    """Returns a `data` section, checked; UserError names whose it is, and the first wrong key."""
    from pydantic import ValidationError

    from hvae.data import DataConfig

    try:
        return DataConfig.model_validate(values)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, ("data", *first["loc"])))
        raise UserError(f"{owner}: {key}: {first['msg']}") from None


def weights_record(weights: Path) -> dict[str, str]:
    """Returns what names a file of weights: itself and its sha256."""
    return {"checkpoint": str(weights), "checkpoint_sha256": sha256(weights)}


def saved_data(weights: Path) -> dict[str, Any]:
    """Returns the `data` section of the run that weights are of.

    Raises:
        UserError: a file of weights stands alone, or its state holds no such section.
    """
    from hvae import checkpoint

    if not weights.with_name("state.json").is_file():
        raise UserError(
            f"{weights}: a weights file does not say what it was trained on; give --data"
        )
    saved = checkpoint.read_state(weights.parent).get("config")
    if not isinstance(saved, dict) or not isinstance(saved.get("data"), dict):
        raise UserError(f"{weights.parent}: its state does not say what it was trained on")
    return dict(saved["data"])
