"""Run folders and checkpoints: safetensors and JSON, committed by rename; no pickle anywhere.

    runs/<name>/config.yaml  metrics.jsonl  samples/  latest  best
    runs/<name>/checkpoints/step-<n>/{model,ema,optim}.safetensors  state.json

A checkpoint is written to a temporary folder, synced and renamed, and only then named in `latest`,
so that a kill at any moment leaves the previous one in force. Its `state.json` holds the sha256 of
every other file and a digest of itself; whoever reads a checkpoint checks them, and goes back to
the newest one that is complete. `docs/checkpoints.md` is the page for users.
"""

from hvae.checkpoint.files import check_space, full_disk_is_told, read_json
from hvae.checkpoint.folder import (
    Damage,
    Found,
    adopt,
    has_checkpoints,
    latest_checkpoint,
    newest_complete,
    rewind,
)
from hvae.checkpoint.loading import find_checkpoint, find_weights, load, load_weights
from hvae.checkpoint.refined import PRIOR, REFINE, load_refiner, refine_folder
from hvae.checkpoint.saving import commit, num_bytes, save, stage, write_tensors
from hvae.checkpoint.state import damage, read_state, write_state
from hvae.checkpoint.tensors import check_finite, check_tensors, read_tensors

__all__ = [
    "PRIOR",
    "REFINE",
    "Damage",
    "Found",
    "adopt",
    "check_finite",
    "check_space",
    "check_tensors",
    "commit",
    "damage",
    "find_checkpoint",
    "find_weights",
    "full_disk_is_told",
    "has_checkpoints",
    "latest_checkpoint",
    "load",
    "load_refiner",
    "load_weights",
    "newest_complete",
    "num_bytes",
    "read_json",
    "read_state",
    "read_tensors",
    "refine_folder",
    "rewind",
    "save",
    "stage",
    "write_state",
    "write_tensors",
]
