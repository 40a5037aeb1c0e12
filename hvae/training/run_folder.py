"""The folder of a run: who may write to it, and whether a command may go on with it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from hvae import __version__, checkpoint
from hvae.errors import UserError
from hvae.training.config import Config
from hvae.training.config_file import config_yaml
from hvae.training.metrics_log import Meter
from hvae.training.recovery import Recovery
from hvae.training.step import Stepper

# What may differ between the command that began a run and one that goes on with it: lengths and
# intervals, and what has no influence on the weights.
_FREE = {
    "runs_dir", "eval", "data.workers", "train.images", "train.keep_last", "train.log_every",
    "train.sample_every", "train.checkpoint_every", "train.eval_every",
    "train.guard.max_rollbacks", "train.memory_gib", "train.checkpoint_activations",
}  # fmt: skip


class RunFolder:
    """`<runs_dir>/<name>` of a configuration."""

    def __init__(self, config: Config) -> None:
        self.path = Path(config.runs_dir) / config.name
        self.metrics = self.path / "metrics.jsonl"
        self.samples = self.path / "samples"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder, made if missing, against a second run until the context ends.

        Raises:
            UserError: if another process holds it, or it cannot be written.
        """
        try:
            self.samples.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise UserError(f"{self.path}: cannot write the run folder: {error}") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(
                    f"{self.path}: another process trains in this run folder; "
                    "choose another one with name=..."
                ) from None
            yield

    def begin(self, config: Config) -> Path | None:
        """Records the configuration and returns the checkpoint to go on from, if there is one.

        Raises:
            UserError: if the checkpoint was made under another configuration; names the keys.
        """
        latest = checkpoint.latest_checkpoint(self.path)
        if latest is not None:
            saved = _completed(checkpoint.read_state(latest)["config"])
            differing = _differences(saved, as_json(config))
            if differing:
                raise UserError(
                    f"{self.path}: this run was started with {'; '.join(differing)}. Use the same "
                    "values to resume it, or name=... for a new run"
                )
        checkpoint.write_text(self.path / "config.yaml", config_yaml(config))
        return latest

    def rewind(self, step: int) -> Path:
        """Puts the checkpoint of an earlier step in force again and returns its folder."""
        return checkpoint.rewind(self.path, step)

    def save(
        self,
        config: Config,
        stepper: Stepper,
        meter: Meter,
        result: dict[str, Any] | None,
        recovery: Recovery | None = None,
    ) -> None:
        """Commits a checkpoint of where a run stands.

        Args:
            config: of the run.
            stepper: its state.
            meter: what the next row of the log averages so far.
            result: the run's score once it is done.
            recovery: where the run goes back to if it diverges. None: to here.
        """
        recovery = recovery or Recovery(good_step=stepper.steps)
        state = {
            **stepper.state_dict(),
            "meter": meter.state_dict(),
            "recovery": recovery.state_dict(),
            "result": result,
            "config": as_json(config),
            "versions": {"hvae": __version__, "torch": torch.__version__},
        }
        checkpoint.save(
            self.path,
            stepper.steps,
            stepper.tensors(),
            state,
            keep_last=config.train.keep_last,
            keep=recovery.good_step,
        )


def as_json(config: Config) -> dict[str, Any]:
    """Returns the configuration as JSON values."""
    return config.model_dump(mode="json")


def _completed(saved: dict[str, Any]) -> dict[str, Any]:
    """A saved configuration with the defaults of keys that are younger than it."""
    try:
        return as_json(Config.model_validate(saved))
    except ValidationError:
        return saved  # of another version; its differences are named


def _differences(saved: Any, asked: Any, key: str = "") -> list[str]:
    """Returns "key=saved (now asked)" for each value that differs and may not."""
    if key in _FREE:
        return []
    if isinstance(saved, dict) and isinstance(asked, dict):
        prefix = f"{key}." if key else ""
        names = dict.fromkeys([*saved, *asked])
        pairs = ((f"{prefix}{n}", saved.get(n), asked.get(n)) for n in names)
        return [line for name, s, a in pairs for line in _differences(s, a, name)]
    return [] if saved == asked else [f"{key}={saved} (now {asked})"]
