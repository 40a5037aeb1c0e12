"""`--cond KIND=VALUE`: what a conditional model is told about the images it draws."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hvae.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from hvae.data import ImageSource
    from hvae.models import HVAE
    from hvae.models.condition import Conditioner

Rows = Callable[[int, int], "Tensor | None"]


@dataclass(frozen=True)
class Told:
    """The conditions of a sheet: `rows(first, n)` are those of images `first` to `first + n`."""

    rows: Rows
    columns: int | None = None
    """Columns of a sheet that shows them in order; None for any."""


def read_condition(text: str | None, model: "HVAE", weights: Path) -> Told:
    """Returns what `--cond` asks for.

    Raises:
        UserError: it is no KIND=VALUE, the model takes no such condition, or it cannot be read.
    """
    if text is None:
        return Told(lambda first, n: None)
    if model.condition is None:
        raise UserError("--cond: this model takes no condition; it was trained without")
    kind, found, value = text.partition("=")
    wanted = model.config.condition.kind
    if not found or kind not in (wanted, "data"):
        raise UserError(f"--cond: wanted {wanted}=... or data=test, got {text}")
    if kind == "data":
        return _of_data(model, weights, value)
    if kind == "class":
        return _of_class(model.condition, value)
    row = _vector(value) if kind == "vector" else _image(model.condition, Path(value))
    if row.shape != model.condition.shape:
        raise UserError(
            f"--cond: the model wants {_by(model.condition.shape)}, {value} is {_by(row.shape)}"
        )
    return Told(lambda first, n: row.expand(n, *row.shape))


def conditions_of(
    model: "HVAE", source: "ImageSource", images: "Tensor", first: int
) -> "Tensor | None":
    """Returns what a set says of its images `first` on; None for an unconditional model."""
    from hvae.ops.philox import derive_seed, make_rng

    last = first + len(images)
    labels, conditions = (
        None if told is None else told[first:last] for told in (source.labels, source.conditions)
    )
    rng = make_rng(derive_seed(0, "condition"), first)
    return model.condition_of(images, labels, conditions, rng=rng)


def _of_class(condition: "Conditioner", value: str) -> Told:
    import torch

    names = condition.names
    if value == "all" and "all" not in names:
        return Told(lambda first, n: torch.arange(first, first + n) % len(names), len(names))
    label = condition.label(value)
    return Told(lambda first, n: torch.full((n,), label))


def _of_data(model: "HVAE", weights: Path, split: str) -> Told:
    import torch

    from hvae.cli.run import open_data

    if split not in ("train", "test"):
        raise UserError(f"--cond: wanted data=train or data=test, got data={split}")
    source = open_data(weights, model, None, "train" if split == "train" else "test")

    def rows(first: int, n: int) -> "Tensor":
        told = []
        for index in range(first, first + n):
            place = index % len(source)
            told.append(conditions_of(model, source, source[place][None], place))
        return torch.cat([row for row in told if row is not None])

    return Told(rows)


def _vector(value: str) -> "Tensor":
    import torch

    try:
        return torch.tensor([float(number) for number in value.split(",")])
    except ValueError:
        raise UserError(f"--cond: wanted numbers such as vector=0.5,-1, got {value}") from None


def _image(condition: "Conditioner", file: Path) -> "Tensor":
    """An image file, fitted to the condition's shape, or an array file, which has to have it."""
    import numpy as np
    import torch

    assert condition.shape is not None
    if file.suffix == ".npy":
        try:
            return torch.from_numpy(np.load(file, allow_pickle=False))
        except (OSError, ValueError) as error:
            raise UserError(f"--cond: cannot read {file}: {error}") from None
    channels, *sides = condition.shape
    if channels not in (1, 3) or len(sides) != 2:
        raise UserError(
            f"--cond: the model wants {_by(condition.shape)}, more than an image file holds; give "
            "image=FILE.npy"
        )
    from hvae.data.decode import decode
    from hvae.data.resize import fit

    return torch.from_numpy(fit(decode(file), (channels, sides[0], sides[1])))


def _by(shape: tuple[int, ...] | None) -> str:
    return " x ".join(map(str, shape or ()))
