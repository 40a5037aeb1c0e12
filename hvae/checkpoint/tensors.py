"""Tensors in safetensors files: read, written, and checked before anything is changed by them."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hvae.errors import UserError

_SHOWN = 5


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file, on the CPU.

    No more memory is asked for than the file has bytes, whatever its header claims.

    Raises:
        UserError: if it is missing, truncated or otherwise unreadable.
    """
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        size = f"{file.stat().st_size} bytes" if file.exists() else "missing"
        raise UserError(f"{file} ({size}): not a readable safetensors file: {error}") from None


def check_tensors(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], file: Path) -> None:
    """Raises UserError unless names, shapes and dtypes agree; says which tensors do not."""
    problems = [f"{name} is missing" for name in wanted.keys() - tensors.keys()]
    problems += [f"{name} is not part of the model" for name in tensors.keys() - wanted.keys()]
    for name in wanted.keys() & tensors.keys():
        found, asked = tensors[name], wanted[name]
        if found.shape != asked.shape:
            problems.append(f"{name} is {tuple(found.shape)}, wanted {tuple(asked.shape)}")
        elif found.dtype != asked.dtype:
            problems.append(f"{name} is {found.dtype}, wanted {asked.dtype}")
    if problems:
        raise UserError(f"{file}: does not fit its configuration: {_listed(sorted(problems))}")


def check_finite(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Raises UserError if a tensor holds NaN or infinity, which no run ever writes."""
    if bad := sorted(name for name, tensor in tensors.items() if not tensor.isfinite().all()):
        raise UserError(f"{file}: holds numbers that are not finite, in {_listed(bad)}")


def _listed(texts: list[str]) -> str:
    more = f"; and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return "; ".join(texts[:_SHOWN]) + more
