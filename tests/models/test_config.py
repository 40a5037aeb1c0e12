"""The `model:` section: presets, strictness, widths."""

import pytest
from pydantic import ValidationError

from hvae.models import ModelConfig

LADDER = {"encoder": "8x1", "decoder": "8x1"}


def test_a_preset_fills_in_what_is_left_out():
    ours, published = ModelConfig(**LADDER), ModelConfig(**LADDER, preset="vdvae")
    assert (ours.std, ours.std_floor, ours.activation) == ("softplus", 1e-3, "silu")
    assert (published.std, published.std_floor, published.activation) == ("log", 0.0, "gelu")


def test_a_key_wins_over_the_preset():
    config = ModelConfig(**LADDER, preset="vdvae", std="softplus", std_floor=1e-2)
    assert (config.std, config.std_floor, config.activation) == ("softplus", 1e-2, "gelu")


@pytest.mark.parametrize("widths", [{8: 16, 4: 32}, {"8": 16, "4": 32}])
def test_widths_may_come_from_json(widths):
    config = ModelConfig(**LADDER, width=64, widths=widths)
    assert [config.width_at(r) for r in (16, 8, 4)] == [64, 16, 32]


def test_a_configuration_survives_json():
    config = ModelConfig(**LADDER, size=(8, 8), channels=3, widths={4: 32}, preset="vdvae")
    assert ModelConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    "change",
    [
        {"preset": "nvae"},
        {"std": "exp"},
        {"activation": "tanh"},
        {"width": 0},
        {"width": 8.0},
        {"width": True},
        {"widths": {"fine": 8}},
        {"size": ()},
        {"size": (8, 8, 8, 8)},
        {"likelihood": {"kind": "laplace"}},
        {"likelihood": {"bits": 9}},
        {"witdh": 8},
    ],
)
def test_what_is_not_understood_is_refused(change):
    with pytest.raises(ValidationError):
        ModelConfig(**{**LADDER, **change})
