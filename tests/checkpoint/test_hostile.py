"""Run folders made to do harm: one clear line each, and nothing outside them is touched."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import hvae
from hvae import checkpoint
from hvae.errors import UserError
from tests.checkpoint.conftest import folder_of, write


def resign(folder: Path, change: Callable[[dict[str, Any]], object] = lambda state: None) -> None:
    """Changes a state and makes every hash right again, as whoever means harm would."""
    state = checkpoint.read_state(folder)
    names = state.pop("sha256")
    change(state)
    hashes = {name: checkpoint.files.sha256(folder / name) for name in names}
    checkpoint.write_state(folder, state, hashes)


def message_of(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        hvae.load(path)
    return str(caught.value)


HEADERS: dict[str, bytes | dict[str, Any]] = {
    "more bytes than there are": {
        "a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4 << 40]}
    },
    "a shape that overflows": {
        "a": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 4]}
    },
    "no such type": {"a": {"dtype": "XX", "shape": [1], "data_offsets": [0, 4]}},
    "endless nesting": b'{"a":' * 100_000,
    "no text": b"\xff\xfe",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_a_hostile_header_is_refused(tmp_path, header):
    write(tmp_path, 1)
    file = folder_of(tmp_path, 1) / "ema.safetensors"
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + b"1234")
    resign(file.parent)
    assert message_of(tmp_path).startswith(f"{file} ({file.stat().st_size} bytes): not a readable")


def test_a_header_that_claims_gigabytes_is_refused(tmp_path):
    write(tmp_path, 1)
    file = folder_of(tmp_path, 1) / "ema.safetensors"
    file.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    resign(file.parent)
    assert "header too large" in message_of(tmp_path)


def replace(folder: Path, name: str, tensor: torch.Tensor) -> None:
    tensors = load_file(folder / "ema.safetensors")
    save_file({**tensors, name: tensor}, folder / "ema.safetensors")
    resign(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    write(tmp_path, 1)
    folder = folder_of(tmp_path, 1)
    replace(folder, "decoder.bias", torch.full((1, 4, 1, 1), value))
    assert message_of(tmp_path) == (
        f"{folder / 'ema.safetensors'}: holds numbers that are not finite, in decoder.bias"
    )


def test_weights_of_another_type_are_refused(tmp_path):
    write(tmp_path, 1)
    replace(folder_of(tmp_path, 1), "decoder.bias", torch.zeros(1, 4, 1, 1, dtype=torch.int64))
    assert "decoder.bias is torch.int64, wanted torch.float32" in message_of(tmp_path)


def model_key(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda state: state["config"]["model"].update({key: value})


STATES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a model of terabytes": (model_key("width", 1 << 20), "does not fit its configuration"),
    "a billion blocks": (
        model_key("encoder", "4x1000000000"),
        "wanted numbers of at most 5 digits",
    ),
    "a number of digits": (
        model_key("encoder", f"4x{'9' * 5000}"),
        "wanted numbers of at most 5 digits",
    ),
    "no configuration": (lambda state: state.pop("config"), "holds no configuration of a model"),
    "a list for a model": (lambda state: state["config"].update(model=[1]), "holds no config"),
    "another version's key": (model_key("dropout", 0.1), "model configuration is not valid"),
}


@pytest.mark.parametrize(("change", "reason"), STATES.values(), ids=STATES.keys())
def test_a_state_that_asks_for_harm_is_refused(tmp_path, change, reason):
    write(tmp_path, 1)
    resign(folder_of(tmp_path, 1), change)
    assert reason in message_of(tmp_path)


TEXTS = {
    "deep": ('{"a":' * 100_000, "cannot be read as JSON"),
    "long number": ('{"step": ' + "9" * 10_000 + "}", "cannot be read as JSON"),
    "no object": ("[1]", "wanted a JSON object, got list"),
    "no UTF-8": (b"\xff\xfe", "cannot be read as JSON"),
    "outside": ('{"sha256": {"../../secret": "0"}}', "'../../secret' is no name of a file"),
    "no hashes": ('{"sha256": 1}', "names no files"),
}


@pytest.mark.parametrize(("text", "reason"), TEXTS.values(), ids=TEXTS.keys())
def test_a_state_that_is_none_is_damage(tmp_path, text, reason):
    write(tmp_path, 1)
    file = folder_of(tmp_path, 1) / "state.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = message_of(tmp_path)
    assert message.startswith(f"{tmp_path}: no checkpoint of it is complete; step-1: state.json: ")
    assert reason in message
    assert len(message) < 500


def test_a_state_of_gigabytes_is_not_read(tmp_path):
    write(tmp_path, 1)
    with (folder_of(tmp_path, 1) / "state.json").open("r+b") as stream:
        stream.truncate(1 << 33)  # a hole, which takes no disk
    assert "8,192.0 MiB, too large to be meant" in message_of(tmp_path)


def test_latest_never_leads_out_of_the_run(tmp_path):
    write(tmp_path / "outside", 7)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "latest").write_text("../../outside/checkpoints/step-7\n")
    message = message_of(run)
    assert "wanted the name of a checkpoint, as in step-100, got '../../outside" in message
