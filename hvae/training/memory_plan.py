"""Which resolutions recompute what, so that a training step fits a memory budget."""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from hvae.errors import UserError
from hvae.models import ModelConfig
from hvae.models.layout import Layout
from hvae.models.recompute import LEVELS, Level, Recompute
from hvae.training.config import TrainConfig
from hvae.training.footprint import Footprint, footprint

# What of a device's free memory a run plans with: libraries want workspaces, the allocator is left
# with gaps, and on a CPU other programs live as well.
_SHARE = {"cpu": 0.8, "cuda": 0.9}


# Compiled code is no list of operations that a policy could pick from.
_WITH_REGIONAL = {"none", "block"}


def plan_for(
    model: ModelConfig, train: TrainConfig, batch: int, device: torch.device, *, bf16: bool
) -> Recompute:
    """Returns what a run recomputes: as its configuration says, or the least that fits its budget.

    Args:
        model: with size and channels set.
        train: whose `checkpoint_activations`, `memory_gib` and `head_bands` count.
        batch: images that go through the model at once.
        device: whose free memory `memory_gib: auto` means.
        bf16: convolutions in bfloat16.

    Raises:
        UserError: if nothing fits a budget in GiB (with "auto" that is a warning), or a level is
            given for an unknown resolution.
    """
    asked = train.checkpoint_activations
    layout = Layout.parse(model)
    if asked is not None:
        given = {asked} if isinstance(asked, str) else set(asked.values())
        if train.compile == "regional" and not given <= _WITH_REGIONAL:
            raise UserError(
                "train.checkpoint_activations: with train.compile: regional wanted none or block, "
                f"got {', '.join(sorted(given))}; compiled blocks recompute element-wise work by "
                "themselves"
            )
        known = {r for part in _resolutions(layout) for r in part}
        levels = dict.fromkeys(known, asked) if isinstance(asked, str) else asked
        if unknown := sorted(set(levels) - known):
            raise UserError(
                f"train.checkpoint_activations: no block stands at resolution {unknown[0]}; "
                f"blocks stand at {', '.join(map(str, sorted(known)))}"
            )
        return _recompute(layout, levels, train.head_bands)
    if train.memory_gib is None:
        return Recompute(head=train.head_bands)
    if train.memory_gib == "auto":
        budget = free_bytes(device) * _SHARE[device.type]
    else:
        budget = train.memory_gib * 2**30
    offered: Sequence[Level] = ("block",) if train.compile == "regional" else LEVELS[1:]
    plans = list(plans_of(model, train.head_bands, offered))
    plan, found = fitted(model, batch, budget, plans, bf16=bf16)
    if found.total > budget:
        short = (
            f"train.memory_gib: a step on {batch} images at once takes "
            f"{found.total / 2**30:.1f} GiB even when every block is recomputed, but the budget is "
            f"{budget / 2**30:.1f} GiB; use a smaller data.batch, or a larger train.accumulate"
        )
        if train.memory_gib != "auto":
            raise UserError(short)
        warnings.warn(short, stacklevel=2)  # what is free may be more by the time it is used
    return plan


def fitted(
    model: ModelConfig,
    batch: int,
    budget: float,
    plans: Sequence[Recompute],
    *,
    bf16: bool = False,
) -> tuple[Recompute, Footprint]:
    """Returns the first plan that fits a budget, and what it takes; the last one if none does.

    Plans are weighed by a count of maps; the one picked is then measured by `footprint`, and the
    count corrected, until it fits.
    """
    at = 0
    while True:
        found = footprint(model, batch, plans[at], bf16=bf16)
        if found.total <= budget or at + 1 == len(plans):
            return plans[at], found
        spare = budget - (found.total - found.held)
        factor = found.held / kept_numbers(model, plans[at])
        most = spare / factor
        later = range(at + 1, len(plans))
        at = next((i for i in later if kept_numbers(model, plans[i]) <= most), len(plans) - 1)


def plans_of(
    model: ModelConfig, head: int = 0, levels: Sequence[Level] = LEVELS[1:]
) -> Iterator[Recompute]:
    """Yields plans from what is fastest to what is smallest.

    Cheap recomputation comes first, at every resolution, before dear one begins anywhere. Within a
    level, narrow maps come first: recomputing a number costs arithmetic in proportion to the
    channels. Among equals the finest come first, which hold most.
    """
    layout = Layout.parse(model)
    encoder, decoder = _resolutions(layout)
    reached: dict[int, Level] = {}
    yield Recompute(head=head)
    for level in levels:
        for resolution in sorted(encoder | decoder, key=lambda r: (model.width_at(r), -r)):
            reached = {**reached, resolution: level}
            yield _recompute(layout, reached, head)


def kept_numbers(model: ModelConfig, plan: Recompute) -> int:
    """Returns about how many numbers the blocks of a plan keep per image."""
    layout = Layout.parse(model)
    total = 0.0
    for specs, levels, per_block in (
        (layout.encoder, plan.encoder, _ENCODER),
        (layout.decoder, plan.decoder, _DECODER),
    ):
        for spec in specs:
            width = model.width_at(spec.resolution)
            states, inner = per_block[levels.get(spec.resolution, "none")]
            pixels = torch.Size(layout.shape_at(spec.resolution)).numel()
            total += pixels * width * (states + inner * model.bottleneck)
    return round(total)


# Maps that a block keeps, of the state's width and of the bottleneck's: inputs of convolutions and
# of non-linearities.
_ENCODER = {"none": (2, 6), "elementwise": (0.5, 3), "pointwise": (0.5, 2), "block": (1, 0)}
_DECODER = {"none": (5, 18), "elementwise": (0.5, 10), "pointwise": (0.5, 6), "block": (1, 0)}


def free_bytes(device: torch.device) -> int:
    """Returns the memory of a device that nobody uses now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _resolutions(layout: Layout) -> tuple[set[int], set[int]]:
    return {b.resolution for b in layout.encoder}, {b.resolution for b in layout.decoder}


def _recompute(layout: Layout, levels: dict[int, Level], head: int) -> Recompute:
    encoder, decoder = _resolutions(layout)
    return Recompute(
        {r: level for r, level in levels.items() if r in encoder},
        {r: level for r, level in levels.items() if r in decoder},
        head,
    )
