"""The sheets a run leaves to look at."""

from pathlib import Path

import torch

from hvae.data import ImageSource, save_grid
from hvae.inference import reconstruct
from hvae.models import HVAE

_COLUMNS = 8
_SAMPLES = 64
_PAIRS = 32


def write_sheets(model: HVAE, test: ImageSource, folder: Path, stem: str, *, seed: int) -> None:
    """Writes `samples-<stem>.png` and `reconstructions-<stem>.png` into a folder.

    The second holds the first test images, each followed by its reconstruction from all latents.

    Args:
        model: in evaluation mode, with the weights to show.
        test: where the originals come from.
        folder: of the sheets.
        stem: ends their names.
        seed: of the draws; equal seeds show the same samples as training goes on.
    """
    originals = torch.stack([test[i] for i in range(min(_PAIRS, len(test)))])
    rebuilt = reconstruct(model, originals, seed=seed).cpu()
    pairs = torch.stack((originals, rebuilt), 1).flatten(0, 1)
    save_grid(pairs, folder / f"reconstructions-{stem}.png", columns=_COLUMNS)
    samples = model.sample(_SAMPLES, seed=seed)
    save_grid(samples, folder / f"samples-{stem}.png", columns=_COLUMNS)
