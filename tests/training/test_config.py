"""The sections of a run's configuration."""

import pytest
from pydantic import ValidationError

from hvae.training import Config, TrainConfig

PARTS = {"data": {"source": "shapes"}, "model": {"encoder": "8x1", "decoder": "8x1"}}


def test_little_has_to_be_said():
    config = Config.model_validate(PARTS)
    assert (config.name, config.seed, config.train) == ("run", 0, TrainConfig())
    assert config.train.objective.beta == 1.0
    assert config.train.guard.quantile == 0.95


def test_data_and_model_must_agree_on_channels():
    values = {
        "data": {"source": "shapes", "channels": 3},
        "model": {**PARTS["model"], "channels": 1},
    }
    with pytest.raises(ValidationError, match=r"data\.channels is 3, model\.channels is 1"):
        Config.model_validate(values)


@pytest.mark.parametrize("schedule", ["cyclical", "constant"])
def test_a_warm_up_belongs_to_the_linear_schedule(schedule):
    objective = {"kl_schedule": schedule, "kl_warmup_images": 100}
    with pytest.raises(
        ValidationError,
        match=f"kl_warmup_images is of the linear schedule, but kl_schedule is {schedule}",
    ):
        Config.model_validate({**PARTS, "train": {"objective": objective}})


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../elsewhere"},
        {"name": ""},
        {"name": ".hidden"},
        {"seed": -1},
        {"seed": 2**63},
        {"train": {"images": 0}},
        {"train": {"lr": 0.0}},
        {"train": {"lr": True}},
        {"train": {"ema": 1.0}},
        {"train": {"optimizer": "sgd"}},
        {"train": {"precision": "fp16"}},
        {"train": {"log_every": 0}},
        {"train": {"keep_last": 0}},
        {"train": {"objective": {"beta": -1.0}}},
        {"train": {"objective": {"free_bits": -0.1}}},
        {"train": {"objective": {"kl_schedule": "sigmoid"}}},
        {"train": {"objective": {"kl_cycles": 0}}},
        {"train": {"objective": {"kl_cycle_rise": 0.0}}},
        {"train": {"objective": {"spectral": -1.0}}},
        {"train": {"objective": {"spectral_layers": "some"}}},
        {"train": {"guard": {"max_rollbacks": -1}}},
        {"train": {"guard": {"max_above_uniform": 0}}},
        {"train": {"guard": {"quantile": 1.0}}},
        {"train": {"guard": {"window": 10}}},
        {"train": {"guard": {"skip_factor": 1.0}}},
        {"eval": {"importance": 0}},
        {"trian": {}},
    ],
)
def test_values_out_of_range_are_refused(change):
    with pytest.raises(ValidationError):
        Config.model_validate({**PARTS, **change})
