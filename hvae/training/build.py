"""From a configuration and its data to the model of a run."""

from typing import Any

import torch

from hvae.data import ImageSource, complete_condition, open_source
from hvae.errors import UserError
from hvae.models import HVAE
from hvae.models.recompute import Recompute
from hvae.ops.philox import derive_seed
from hvae.training.config import Config
from hvae.training.memory_plan import plan_for
from hvae.training.precision import uses_bf16


def complete(config: Config, source: ImageSource | None = None) -> Config:
    """Returns the configuration with size, channels and classes of the model taken from the data.

    Args:
        config: of a run.
        source: its data. None: opened, unless the settings tell all that the model asks for.

    Raises:
        UserError: if it names others, or the data has to be opened and cannot be.
    """
    if source is None:
        found = sized(config)
        if found.model.size and found.model.channels and found.model.condition.kind == "none":
            return found
        source = open_source(config.data, "train")
    channels, *sides = source.shape
    update: dict[str, Any] = {"size": tuple(sides), "channels": channels}
    for key, value in update.items():
        asked = getattr(config.model, key)
        if asked not in (None, value):
            raise UserError(
                f"model.{key} is {asked}, but that of {config.data.source} is {value}; leave "
                f"model.{key} out, or set data.{key}"
            )
    update["condition"] = complete_condition(config.model.condition, source)
    return config.model_copy(update={"model": config.model.model_copy(update=update)})


def sized(config: Config) -> Config:
    """Returns the configuration with size and channels of the model from the data's settings.

    What neither says stays open; no data is read.
    """
    data, model = config.data, config.model
    update = {"size": model.size or data.height_width, "channels": model.channels or data.channels}
    return config.model_copy(update={"model": model.model_copy(update=update)})


def build_model(config: Config, device: torch.device) -> HVAE:
    """Returns the run's model with its initial weights, which the seed alone decides.

    Its backward recomputes what the configuration asks for, or the memory budget.

    Raises:
        UserError: if no plan fits the budget.
    """
    at_once = -(-config.data.batch // config.train.accumulate)
    bf16 = uses_bf16(config.train, device)
    return planned_model(
        config, plan_for(config.model, config.train, at_once, device, bf16=bf16), device
    )


def planned_model(config: Config, plan: Recompute, device: torch.device) -> HVAE:
    """Returns the model as `build_model`, with a backward that recomputes what the plan says."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "init"))
        model = HVAE(config.model)
    model.recompute(plan)
    return model.to(device)
