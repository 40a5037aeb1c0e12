"""From a configuration and its data to the model of a run."""

from typing import Any

import torch

from hvae.data import ImageSource, complete_condition
from hvae.errors import UserError
from hvae.models import HVAE
from hvae.ops.philox import derive_seed
from hvae.training.config import Config


def complete(config: Config, source: ImageSource) -> Config:
    """Returns the configuration with size, channels and classes of the model taken from the data.

    Raises:
        UserError: if it names others.
    """
    channels, *sides = source.shape
    found: dict[str, Any] = {"size": tuple(sides), "channels": channels}
    for key, value in found.items():
        asked = getattr(config.model, key)
        if asked not in (None, value):
            raise UserError(
                f"model.{key} is {asked}, but that of {config.data.source} is {value}; leave "
                f"model.{key} out, or set data.{key}"
            )
    found["condition"] = complete_condition(config.model.condition, source)
    return config.model_copy(update={"model": config.model.model_copy(update=found)})


def build_model(config: Config, device: torch.device) -> HVAE:
    """Returns the run's model with its initial weights, which the seed alone decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "init"))
        model = HVAE(config.model)
    return model.to(device)
