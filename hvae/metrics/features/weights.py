"""Published weights: what they are called, where they are looked for, how they are checked.

Folders are searched in this order; a file counts only if its sha256 is the published one.

    --weights                       a file, or a folder to search instead of all others
    $HVAE_WEIGHTS                   a folder, or a file
    $XDG_CACHE_HOME/hvae/weights    ~/.cache/hvae/weights by default; downloads go here
    $TORCH_HOME/hub/checkpoints     ~/.cache/torch/hub/checkpoints by default
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.files import sha256, user_path


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights as its authors published it."""

    name: str
    url: str
    sha256: str
    num_bytes: int

    other_names: tuple[str, ...] = ()
    """Names under which other tools keep the same bytes."""


def cache_folder() -> Path:
    """Returns the folder that downloads and converted copies go to; it may not exist yet."""
    return _cache_home() / "hvae" / "weights"


def search_folders() -> list[Path]:
    """Returns where weights are looked for when no place is given, first to last."""
    given = os.environ.get("HVAE_WEIGHTS")
    torch_home = os.environ.get("TORCH_HOME")
    torch_folder = user_path(torch_home) if torch_home else _cache_home() / "torch"
    return [
        *([user_path(given)] if given else []),
        cache_folder(),
        torch_folder / "hub" / "checkpoints",
    ]


def find(names: Sequence[str], given: Path | None = None) -> Path | None:
    """Returns the file or folder with one of the names, or None.

    Args:
        names: what it may be called, the first one preferred.
        given: it itself, whatever its name, or a folder that holds it; nothing else is searched.

    Raises:
        UserError: `given` is neither.
    """
    for place in [given] if given is not None else search_folders():
        if place.is_file() and (place == given or place.name in names):
            return place
        for name in names:
            if (place / name).exists():
                return place / name
    if given is not None:
        raise UserError(f"{given}: no such file, and no folder that holds {' or '.join(names)}")
    return None


def missing(file: WeightsFile) -> UserError:
    """Returns the error of a file that was not found: where to get it and where to put it."""
    return UserError(
        f"{file.name} is missing: get it from {file.url} (sha256 {file.sha256}) and put it into "
        f"{cache_folder()}, or let hvae fid fetch it with --download"
    )


def check_sha256(path: Path, wanted: str) -> None:
    """Raises UserError unless a file has the sha256 that is wanted."""
    found = file_sha256(path)
    if found != wanted:
        raise UserError(
            f"{path}: not the published weights: wanted sha256 {wanted}, got {found}; "
            "remove the file or get it again"
        )


def file_sha256(path: Path) -> str:
    """Returns the sha256 of a file, hexadecimal.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return sha256(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Returns the sha256 over names, dtypes, shapes and values in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_state_dict(path: Path, wanted: str) -> dict[str, Tensor]:
    """Returns the tensors of a file that `torch.save` wrote, its sha256 checked before it is read.

    Raises:
        UserError: the sha256 is another, or the content is not a dictionary of tensors.
    """
    check_sha256(path, wanted)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes torch's reader raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read as a dictionary of tensors: {reason}") from None
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"{path}: wanted a dictionary of tensors, got a {type(content).__name__}")
    return dict(content)


def check_keys(path: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises UserError, naming the first few, unless tensors have exactly the names and shapes."""
    problems = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - wanted.keys()),
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} for {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ],
    }
    found = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in problems.items()
        if names
    ]
    if found:
        raise UserError(f"{path}: the tensors are not this network's: {'; '.join(found)}")


def _cache_home() -> Path:
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
