"""Draws from the prior, the same for sample i whatever it is drawn with."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.models.ladder import Guidance
from hvae.models.refiner import Refiner
from hvae.ops.philox import make_rng

if TYPE_CHECKING:
    from hvae.models.hvae import HVAE

# Sampling runs the network on chunks of this many samples, aligned to their global index and
# padded: convolutions differ in the last bit between batch sizes, and sample i must not.
CHUNK = 16

_CONDITIONAL, _UNCONDITIONAL = Guidance(1.0, 1.0), Guidance(0.0, 0.0)


@dataclass(frozen=True)
class Request:
    """What is drawn; see `HVAE.sample`.

    name         meaning
    temperature  of each group
    output       "sample" or "mean" of the likelihood
    rows         (n, ...) conditions, of a conditional model
    guidance     weights of the conditional prior
    latents      (n, Z, *S) of the first groups, where they are given
    seed         of the noise
    refiner      makes the images, if there is one
    """

    temperature: Sequence[float]
    output: str
    rows: Tensor | None
    guidance: Guidance
    latents: Sequence[Tensor]
    seed: int
    refiner: Refiner | None


def draw(model: "HVAE", n: int, first_index: int, request: Request) -> Tensor:
    """Returns samples `first_index` to `first_index + n - 1`, uint8 (n, C, *S)."""
    chunk = model.chunk
    start = first_index - first_index % chunk
    chunks = [torch.empty(0, *model.shape, dtype=torch.uint8, device=model.device)]
    for base in range(start, first_index + n, chunk):
        chunks.append(_chunk(model, base, base - first_index, request))
    return torch.cat(chunks)[first_index - start :][:n]


def _chunk(model: "HVAE", base: int, offset: int, request: Request) -> Tensor:
    """A whole chunk from global index `base` on, which is row `offset` of what was asked for."""
    chunk = model.chunk
    rng = make_rng(request.seed, base, model.device)
    given = [_rows(z, offset, chunk) for z in request.latents]
    told = request.rows
    if request.guidance == _UNCONDITIONAL:
        told = None
    maps = model.maps(None if told is None else _rows(told, offset, chunk), chunk)
    guided = told is not None and request.guidance != _CONDITIONAL
    if guided:
        maps = _beside(maps, model.maps(None, chunk))
        given = [torch.cat([z, z]) for z in given]
    ladder = model.decoder(
        2 * chunk if guided else chunk,
        rng,
        latents=given,
        temperature=request.temperature,
        cond=maps,
        guidance=request.guidance if guided else None,
        refiner=request.refiner,
    )
    if request.refiner is not None or request.output == "mean":
        return model.image(ladder, request.refiner).round().to(torch.uint8)
    return model.likelihood(model.decoder.head(ladder.state)).sample(rng)


def _rows(z: Tensor, start: int, count: int) -> Tensor:
    """Returns rows `start` to `start + count` of z; rows it does not have are zero."""
    rows = z.new_zeros(count, *z.shape[1:])
    low, high = max(0, start), min(len(z), start + count)
    rows[low - start : high - start] = z[low:high]
    return rows


def _beside(
    maps: Mapping[int, Tensor] | None, nulls: Mapping[int, Tensor] | None
) -> dict[int, Tensor]:
    """Embedded conditions followed by those of as many examples without one."""
    assert maps is not None
    assert nulls is not None
    return {r: torch.cat([m, nulls[r].expand(-1, -1, *m.shape[2:])]) for r, m in maps.items()}


def guidance_of(guidance: float | tuple[float, float], rows: Tensor | None) -> Guidance:
    """Returns weights of means and standard deviations.

    Raises:
        UserError: they are negative, or there is no condition to go toward.
    """
    pair = (guidance, guidance) if isinstance(guidance, int | float) else guidance
    weights = Guidance(*(float(w) for w in pair))
    if not all(math.isfinite(w) and w >= 0 for w in weights):
        raise UserError(f"guidance: wanted weights of at least 0, got {guidance}")
    if weights != _CONDITIONAL and rows is None:
        raise UserError("guidance needs a condition to go toward; give cond")
    return weights


def temperatures_of(temperature: float | Sequence[float], groups: int) -> list[float]:
    """Returns the temperature of each group.

    Raises:
        UserError: there are more or fewer than groups.
    """
    if isinstance(temperature, int | float):
        return [float(temperature)] * groups
    if len(temperature) != groups:
        raise UserError(f"temperature: wanted one number or {groups}, got {len(temperature)}")
    return [float(t) for t in temperature]


def latents_of(
    latents: Sequence[Tensor], n: int, wanted: Sequence[tuple[int, ...]]
) -> list[Tensor]:
    """Returns the given latents, after a check of their shapes.

    Raises:
        UserError: there are too many, or one has another shape.
    """
    if len(latents) > len(wanted):
        raise UserError(f"wanted at most {len(wanted)} latents, got {len(latents)}")
    for group, (z, shape) in enumerate(zip(latents, wanted, strict=False)):
        if tuple(z.shape) != (n, *shape):
            raise UserError(f"latent {group}: wanted {(n, *shape)}, got {tuple(z.shape)}")
    return list(latents)
