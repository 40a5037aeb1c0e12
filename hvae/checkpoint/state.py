"""`state.json`: what a checkpoint holds beside tensors, and what proves all of it unchanged."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hvae.checkpoint.files import read_json, sha256_of
from hvae.errors import UserError
from hvae.files import write_text

STATE = "state.json"
_HASHES, _DIGEST = "sha256", "state_sha256"


def write_state(checkpoint: Path, state: Mapping[str, Any], hashes: Mapping[str, str]) -> None:
    """Writes the state of a checkpoint.

    Args:
        checkpoint: its folder.
        state: JSON values.
        hashes: sha256 of each other file, by its name.
    """
    values = json.loads(json.dumps({**state, _HASHES: hashes}))  # as whoever reads it finds it
    text = json.dumps({**values, _DIGEST: _digest(values)}, indent=1)
    write_text(checkpoint / STATE, text)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Returns a checkpoint's state.

    Raises:
        UserError: if it cannot be read, or is not what was saved.
    """
    values = read_json(checkpoint / STATE)
    digest = values.pop(_DIGEST, None)  # earlier versions wrote none
    if digest is not None and digest != _digest(values):
        raise UserError(f"{checkpoint / STATE}: is not what was saved; its digest differs")
    return values


def damage(checkpoint: Path, only: Collection[str] | None = None) -> str | None:
    """Returns what is wrong with a checkpoint, or None if it is complete and unchanged.

    Its files are read, in pieces and all at once, to compare their hashes.

    Args:
        checkpoint: its folder.
        only: names of the files that will be read. None: all.
    """
    if not checkpoint.is_dir():
        return "it is gone"
    try:
        hashes = file_hashes(read_state(checkpoint))
    except UserError as error:
        return str(error).removeprefix(f"{checkpoint}/")
    names = list(hashes if only is None else only)
    for name in names:
        if name not in hashes:
            return f"{name} is not part of it"
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
    try:
        found = sha256_of(checkpoint / name for name in names)
    except OSError as error:
        return f"a file cannot be read: {error}"
    for name, digest in zip(names, found, strict=True):
        if digest != hashes[name]:
            size = (checkpoint / name).stat().st_size
            return f"{name} ({size} bytes) is not what was saved; its sha256 differs"
    return None


def file_hashes(state: Mapping[str, Any]) -> dict[str, str]:
    """Returns the sha256 of each file, by its name, as a state has them.

    Raises:
        UserError: if there are none, or a name leads out of the checkpoint's folder.
    """
    hashes = state.get(_HASHES)
    if not isinstance(hashes, dict):
        raise UserError(f"{STATE}: names no files")
    for name in hashes:
        if Path(name).name != name:
            raise UserError(f"{STATE}: {name[:80]!r} is no name of a file in the checkpoint")
    return hashes


def _digest(values: Mapping[str, Any]) -> str:
    """Of the values, in an order and form that do not depend on how the file is laid out."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
