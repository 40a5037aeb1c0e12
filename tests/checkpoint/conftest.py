"""Runs of a tiny random model, which is enough to save, damage and load."""

from pathlib import Path
from typing import Any

import torch

from hvae import checkpoint
from hvae.models import HVAE, ModelConfig

CONFIG = ModelConfig(
    size=(4, 4), channels=1, encoder="4x1,4d2,2x1", decoder="2x1,4m2", width=4, z_channels=2
)


def write(run: Path, step: int, *, keep_last: int = 2, **state: Any) -> HVAE:
    """Saves a checkpoint of a new random model, whose average is its weights doubled."""
    model = HVAE(CONFIG)
    tensors = {
        "model": model.state_dict(),
        "ema": {name: 2 * tensor for name, tensor in model.state_dict().items()},
        "optim": {"decoder.gain.step": torch.tensor(float(step))},
    }
    everything = {"step": step, "config": {"model": CONFIG.model_dump(mode="json")}, **state}
    checkpoint.save(run, step, tensors, everything, keep_last=keep_last)
    return model


def checkpoints(run: Path) -> set[str]:
    return {folder.name for folder in (run / "checkpoints").iterdir()}


def same(a: HVAE, b: HVAE, factor: float = 1.0) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(factor * x, y) for x, y in pairs)


def folder_of(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step}"
