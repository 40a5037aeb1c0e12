"""What a model is told about an example: how it is given, checked, dropped and embedded.

    kind     a condition of N examples
    class    int64 (N,) labels; -1 for "not known"
    vector   floating point (N, D), used as it is: standardise it beforehand
    image    (N, C, *S) of the data's size or smaller; uint8 is scaled to [-1, 1], floating point
             is used as it is

Every block of the ladder adds a projection of the embedding to its state, where the prior, the
posterior and what follows read it. The projections start at zero.
"""

import difflib
import re
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from hvae.errors import UserError
from hvae.models.config import ConditionConfig, ModelConfig
from hvae.models.layout import Layout
from hvae.nn.conditioning import ClassEmbedding, ImagePyramid, VectorEmbedding
from hvae.nn.resample import average_pool
from hvae.ops.philox import DROP_STREAM, MASK_STREAM, philox_uniform

# What callers may write: a tensor of rows or one row for all, or classes by name or label.
Condition: TypeAlias = Tensor | str | int | Sequence[str | int]

_SHOWN = 12  # class names listed in a message


class Conditioner(nn.Module):
    """Embeds conditions, and drops some of them while training.

    Whether example i of a seed is dropped is a function of the two alone, like its noise.

    Raises:
        UserError: if the classes or the shape are not set, or an image does not fit the levels.
    """

    def __init__(self, config: ModelConfig, layout: Layout) -> None:
        super().__init__()
        condition, ndim = config.condition, len(layout.finest_shape)
        self.config = condition
        self.resolutions = sorted({block.resolution for block in layout.decoder})
        self.names = condition.classes or ()
        self.shape = () if condition.kind == "class" else condition.shape
        self.embed: nn.Module
        if condition.kind == "class":
            if not self.names:
                raise UserError("model.condition.classes is not set; give the names of the classes")
            self.embed = ClassEmbedding(ndim, len(self.names), condition.width)
        elif self.shape is None:
            raise UserError(f"model.condition.shape is not set; give that of one {condition.kind}")
        elif condition.kind == "vector":
            if len(self.shape) != 1:
                raise UserError(f"model.condition.shape: wanted (numbers,), got {self.shape}")
            self.embed = VectorEmbedding(ndim, self.shape[0], condition.width, config.activation)
        else:
            fold, base = _fold(self.shape, layout)
            levels = {r: layout.shape_at(r) for r in self.resolutions}
            self.embed = ImagePyramid(
                self.shape[0], fold, base, levels, condition.width, config.activation
            )
        # Stands for a condition that is not given.
        self.null = (
            nn.Parameter(torch.zeros(1, condition.width, *[1] * ndim))
            if condition.dropout
            else None
        )

    def forward(self, cond: Tensor | None, n: int, drop: Tensor | None = None) -> dict[int, Tensor]:
        """Returns maps (n, width, *S or *1) by resolution; without `cond` the learned null.

        Args:
            cond: n conditions, as above.
            n: examples.
            drop: int64 (2,), seed and global index of the first example, to drop some. None: none.

        Raises:
            UserError: if `cond` has another shape or dtype, or is missing and was never dropped.
        """
        if cond is None:
            return self.nulls(n)
        self.check(cond, n)
        cond = cond.long() if self.config.kind == "class" else self._scaled(cond)
        embedded = self.embed(cond)
        absent = self._absent(cond, drop)
        if self.null is None or absent is None:
            maps = embedded
        elif isinstance(embedded, dict):
            maps = {r: torch.where(absent, self.null, m) for r, m in embedded.items()}
        else:
            maps = torch.where(absent, self.null, embedded)
        return maps if isinstance(maps, dict) else dict.fromkeys(self.resolutions, maps)

    def nulls(self, n: int) -> dict[int, Tensor]:
        """Returns the maps of n examples without a condition."""
        if self.null is None:
            raise UserError(
                "this model knows no example without a condition (model.condition.dropout is 0); "
                "give cond"
            )
        return dict.fromkeys(self.resolutions, self.null.expand(n, *self.null.shape[1:]))

    def rows(self, cond: Condition, n: int, device: torch.device) -> Tensor:
        """Returns a condition in any of its forms as n rows on a device.

        Raises:
            UserError: if a class is unknown, or there is neither one row nor n.
        """
        if not isinstance(cond, Tensor):
            if self.config.kind != "class":
                raise UserError(f"cond: wanted a tensor for a {self.config.kind}, got {cond!r}")
            if isinstance(cond, str | int):
                cond = torch.tensor(self.label(cond))
            else:
                cond = torch.tensor([self.label(word) for word in cond], dtype=torch.int64)
        if cond.shape == self.shape:
            cond = cond.expand(n, *cond.shape)
        self.check(cond, n)
        if self.config.kind == "class" and n:
            self._check_labels(cond)
        return cond.to(device)

    def label(self, word: str | int) -> int:
        """Returns the label of a class by its name, in any case and with any separators, or number.

        Raises:
            UserError: if there is no such class; with the nearest names.
        """
        if isinstance(word, int) or (word.isascii() and word.isdigit() and word not in self.names):
            label = int(word)
            if label not in range(-1, len(self.names)):
                raise UserError(
                    f"no class {label}; labels go from 0 to {len(self.names) - 1}: {self._listed()}"
                )
            return label
        if word in self.names:
            return self.names.index(word)
        slugs = [slug(name) for name in self.names]
        if slugs.count(slug(word)) == 1:
            return slugs.index(slug(word))
        near = difflib.get_close_matches(slug(word), slugs, n=3)
        advice = f"did you mean {' or '.join(near)}?" if near else f"classes: {self._listed()}"
        raise UserError(f"no class {word}; {advice}")

    def check(self, cond: Tensor, n: int) -> None:
        """Raises UserError unless `cond` has the shape and dtype of n conditions."""
        assert self.shape is not None
        integers = cond.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
        fits = {
            "class": integers,
            "vector": cond.is_floating_point(),
            "image": cond.is_floating_point() or cond.dtype == torch.uint8,
        }[self.config.kind]
        if not fits or tuple(cond.shape) != (n, *self.shape):
            dtype = {"class": "integer", "vector": "floating point"}.get(
                self.config.kind, "uint8 or floating point"
            )
            raise UserError(
                f"cond: wanted {dtype} of shape {(n, *self.shape)}, "
                f"got {cond.dtype} {tuple(cond.shape)}"
            )

    def _check_labels(self, labels: Tensor) -> None:
        low, high = int(labels.min()), int(labels.max())
        if low < -1 or high >= len(self.names):
            raise UserError(
                f"cond: wanted labels from 0 to {len(self.names) - 1}, or -1 for none, "
                f"got {low} to {high}"
            )
        if low < 0 and self.null is None:
            self.nulls(0)

    def _scaled(self, cond: Tensor) -> Tensor:
        dtype = next(self.parameters()).dtype
        return cond.to(dtype) / 127.5 - 1 if cond.dtype == torch.uint8 else cond.to(dtype)

    def _absent(self, cond: Tensor, drop: Tensor | None) -> Tensor | None:
        """Which examples go without their condition, bool (N, 1...); None: surely none."""
        absent = cond < 0 if self.config.kind == "class" else None
        if drop is not None:
            chance = philox_uniform(drop, DROP_STREAM, 1, len(cond))[:, 0, 0]
            dropped = chance < self.config.dropout
            absent = dropped if absent is None else absent | dropped
        if absent is None or self.null is None:
            return None
        return absent.view(-1, *[1] * (self.null.ndim - 1))

    def _listed(self) -> str:
        more = len(self.names) - _SHOWN
        shown = ", ".join(slug(name) for name in self.names[:_SHOWN])
        return shown + (f" and {more} more" if more > 0 else "")


def slug(name: str) -> str:
    """Returns a class name as one types it: lower case, words joined by "-".

    >>> slug("Ankle boot")
    'ankle-boot'
    """
    return re.sub(r"[\W_]+", "-", name.lower()).strip("-")


def condition_of(
    config: ConditionConfig,
    x: Tensor,
    *,
    labels: Tensor | None,
    conditions: Tensor | None,
    rng: Tensor,
) -> Tensor | None:
    """Returns the conditions of examples of a data set, on the device of `x`; None for kind none.

    Args:
        config: which kind, and from where.
        x: uint8 (N, C, *S).
        labels: int64 (N,), what the set says.
        conditions: (N, ...), what the set stores beside its images.
        rng: seed and global index of the first example; decides where masks lie.

    Raises:
        UserError: if the set does not say what is asked for.
    """
    if config.kind == "none":
        return None
    if config.source == "downsample":
        return low_resolution(x, config.factor)
    if config.source == "mask":
        return masked(x, random_mask(x, rng))
    given = labels if config.kind == "class" else conditions
    if given is None:
        what = "labels" if config.kind == "class" else "conditions"
        raise UserError(f"model.condition.kind is {config.kind}, but the data has no {what}")
    return given.to(x.device, non_blocking=True)


def low_resolution(x: Tensor, factor: int) -> Tensor:
    """Returns uint8 (N, C, *S / factor): rounded means over blocks of `factor` along every axis."""
    return (average_pool(x.float(), factor) + 0.5).floor().to(torch.uint8)


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """Returns uint8 (N, C + 1, *S): `x` blanked to 0 where `mask` is 0, then the mask as 0 or 255.

    Args:
        x: uint8 (N, C, *S).
        mask: bool or 0 and 1, (N, 1, *S), 1 where the data is observed.
    """
    observed = mask.to(torch.uint8)
    return torch.cat([x * observed, 255 * observed], 1)


def random_mask(x: Tensor, rng: Tensor) -> Tensor:
    """Returns masks bool (N, 1, *S), False in a box of a quarter to three quarters of every side.

    Size and place of example i are a function of the seed and i alone.
    """
    chance = philox_uniform(rng, MASK_STREAM, x.ndim - 2, len(x))  # (N, axes, 4)
    hidden = torch.ones(len(x), 1, *x.shape[2:], dtype=torch.bool, device=x.device)
    for axis, side in enumerate(x.shape[2:]):
        length = (side * (0.25 + 0.5 * chance[:, axis, 0])).round().clamp(min=1)
        start = ((side - length + 1) * chance[:, axis, 1]).floor()
        places = torch.arange(side, device=x.device)
        inside = (places >= start[:, None]) & (places < (start + length)[:, None])  # (N, side)
        hidden &= inside.view(len(x), 1, *[side if a == axis else 1 for a in range(x.ndim - 2)])
    return ~hidden


def _fold(shape: tuple[int, ...], layout: Layout) -> tuple[int, tuple[int, ...]]:
    """How an image condition meets the finest level: folded in patches of this side, to this shape.

    Raises:
        UserError: unless its sides are those of the finest level times or divided by one number.
    """
    sides, finest = shape[1:], layout.finest_shape
    if len(sides) == len(finest):
        fold = max(1, sides[0] // finest[0])
        if sides == tuple(side * fold for side in finest):
            return fold, finest
        times = finest[0] // sides[0]
        if finest == tuple(side * times for side in sides):
            return 1, sides
    raise UserError(
        f"model.condition.shape: an image of {shape} does not fit the finest level "
        f"{'x'.join(map(str, finest))}; its sides must be those times or divided by one number"
    )
