"""The sheets a run leaves to look at."""

from pathlib import Path

import torch
from torch import Tensor

from hvae.data import ImageSource, save_grid
from hvae.inference import reconstruct
from hvae.models import HVAE
from hvae.ops.philox import make_rng

_CELLS = 8  # along a side of a sheet
_SIDE = 4096  # pixels at most, unless two images are larger: 8 x 8 of 1024 x 1024 are 200 MB


def write_sheets(
    model: HVAE,
    test: ImageSource,
    folder: Path | None,
    stem: str,
    *,
    seed: int,
    samples: int | None = None,
) -> dict[str, Path]:
    """Writes `samples-<stem>.png` and `reconstructions-<stem>.png` into a folder; returns both.

    The second holds the first test images, each followed by its reconstruction from all latents. A
    conditional model samples class by class, a column each, or under conditions of test images.
    Sheets have 8 x 8 images, or as many as fit into 4096 x 4096 pixels.

    Args:
        model: in evaluation mode, with the weights to show.
        test: where the originals come from.
        folder: of the sheets. None: draw them only; a model that is cut runs in all processes.
        stem: ends their names.
        seed: of the draws; equal seeds show the same samples as training goes on.
        samples: how many are drawn. None: a full sheet.
    """
    rows, pair_columns = (_cells(side) for side in model.shape[-2:])
    count = rows * pair_columns if samples is None else samples
    originals, conditions = _examples(model, test, min(rows * pair_columns // 2, len(test)))
    rebuilt = reconstruct(model, originals, seed=seed, cond=conditions).cpu()
    pairs = torch.stack((originals, rebuilt), 1).flatten(0, 1)
    columns = pair_columns
    if classes := model.config.condition.classes:
        columns = min(len(classes), count)
        conditions = torch.arange(count) % columns
    elif conditions is not None:
        conditions = conditions[torch.arange(count) % len(conditions)]
    drawn = model.sample(count, seed=seed, cond=conditions)
    if folder is None:
        return {}
    files = {name: folder / f"{name}-{stem}.png" for name in ("reconstructions", "samples")}
    save_grid(pairs, files["reconstructions"], columns=pair_columns)
    save_grid(drawn, files["samples"], columns=columns)
    return files


def _cells(side: int) -> int:
    """How many images of `side` pixels stand along a side; even, since pairs stay together."""
    return max(2, min(_CELLS, _SIDE // side) // 2 * 2)


def _examples(model: HVAE, test: ImageSource, count: int) -> tuple[Tensor, Tensor | None]:
    """The first images of a set, and their conditions for a model that takes any."""
    x = torch.stack([test[i] for i in range(count)])
    labels, conditions = (None if t is None else t[:count] for t in (test.labels, test.conditions))
    return x, model.condition_of(x, labels, conditions, rng=make_rng(0))
