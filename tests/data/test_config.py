import pytest
from pydantic import ValidationError

from hvae.data import DataConfig


def test_defaults_leave_size_and_channels_to_the_set():
    config = DataConfig(source="emoji-32")
    assert config.height_width is None
    assert config.channels is None
    assert (config.batch, config.workers, config.skip_bad, config.flip) == (
        32,
        "auto",
        False,
        False,
    )


def test_one_number_is_a_square_and_a_yaml_list_is_height_and_width():
    assert DataConfig(source="x", size=64).height_width == (64, 64)
    config = DataConfig.model_validate({"source": "x", "size": [48, 64]})
    assert config.height_width == (48, 64)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": [32]},
        {"size": [32, 32, 3]},
        {"size": 32.0},
        {"channels": 2},
        {"batch": 0},
        {"batch": "32"},
        {"workers": -1},
        {"workers": "all"},
        {"flip": 1},
        {"source": ""},
        {"sorce": "emoji-32"},
    ],
)
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ValidationError):
        DataConfig.model_validate({"source": "emoji-32"} | wrong)


def test_every_key_is_described_in_the_schema():
    properties = DataConfig.model_json_schema()["properties"]
    assert set(properties) >= {"source", "size", "channels", "batch", "workers", "skip_bad", "flip"}
    assert all(entry.get("description") for entry in properties.values())
