"""The sheets a run leaves to look at."""

from pathlib import Path

import torch
from torch import Tensor

from hvae.data import ImageSource, save_grid
from hvae.inference import reconstruct
from hvae.models import HVAE
from hvae.ops.philox import make_rng

_COLUMNS = 8
_SAMPLES = 64
_PAIRS = 32


def write_sheets(
    model: HVAE, test: ImageSource, folder: Path | None, stem: str, *, seed: int
) -> None:
    """Writes `samples-<stem>.png` and `reconstructions-<stem>.png` into a folder.

    The second holds the first test images, each followed by its reconstruction from all latents. A
    conditional model samples class by class, a column each, or under conditions of test images.

    Args:
        model: in evaluation mode, with the weights to show.
        test: where the originals come from.
        folder: of the sheets. None: draw them only; a model that is cut runs in all processes.
        stem: ends their names.
        seed: of the draws; equal seeds show the same samples as training goes on.
    """
    originals, conditions = _examples(model, test, min(_PAIRS, len(test)))
    rebuilt = reconstruct(model, originals, seed=seed, cond=conditions).cpu()
    pairs = torch.stack((originals, rebuilt), 1).flatten(0, 1)
    columns = _COLUMNS
    if classes := model.config.condition.classes:
        columns = min(len(classes), _SAMPLES)
        conditions = torch.arange(_SAMPLES) % columns
    elif conditions is not None:
        conditions = conditions[torch.arange(_SAMPLES) % len(conditions)]
    samples = model.sample(_SAMPLES, seed=seed, cond=conditions)
    if folder is not None:
        save_grid(pairs, folder / f"reconstructions-{stem}.png", columns=_COLUMNS)
        save_grid(samples, folder / f"samples-{stem}.png", columns=columns)


def _examples(model: HVAE, test: ImageSource, count: int) -> tuple[Tensor, Tensor | None]:
    """The first images of a set, and their conditions for a model that takes any."""
    x = torch.stack([test[i] for i in range(count)])
    labels, conditions = (None if t is None else t[:count] for t in (test.labels, test.conditions))
    return x, model.condition_of(x, labels, conditions, rng=make_rng(0))
