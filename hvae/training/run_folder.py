"""The folder of a run: who may write to it, and whether a command may go on with it."""

import errno
import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch
from pydantic import ValidationError

from hvae import __version__, checkpoint
from hvae.errors import UserError
from hvae.files import write_text
from hvae.training.best import Best
from hvae.training.config import Config
from hvae.training.config_file import config_yaml
from hvae.training.distributed import World
from hvae.training.metrics_log import Meter
from hvae.training.recovery import Recovery
from hvae.training.sharding import gathered
from hvae.training.step import Stepper

# What may differ between the command that began a run and one that goes on with it: lengths and
# intervals, and what has no influence on the weights beyond rounding.
_FREE = {
    "runs_dir", "eval", "refine", "data.workers", "train.images", "train.keep_last",
    "train.keep_best", "train.log_every", "train.sample_every", "train.checkpoint_every",
    "train.eval_every",
    "train.guard.max_rollbacks", "train.log_to", "train.sharding", "train.memory_gib",
    "train.checkpoint_activations",
}  # fmt: skip


class RunFolder:
    """`<runs_dir>/<name>` of a configuration.

    Of several processes the first one reads and writes, and all learn what came of it; every method
    is called in all of them.
    """

    def __init__(self, config: Config, world: World | None = None) -> None:
        self.world = world or World()
        self.path = Path(config.runs_dir) / config.name
        self.metrics = self.path / "metrics.jsonl"
        self.samples = self.path / "samples"
        self.checkpoints = self.path / "checkpoints"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder, made if missing, against a second run until the context ends.

        Raises:
            UserError: if another process holds it, or it cannot be written.
        """
        with ExitStack() as held:
            with self.world.agreed():
                if self.world.first:
                    held.enter_context(self._lock())
            yield

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            self.samples.mkdir(parents=True, exist_ok=True)
            self.checkpoints.mkdir(exist_ok=True)
            lock = (self.path / ".lock").open("w")
            for place in (self.path, self.samples, self.checkpoints):
                if not os.access(place, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        except OSError as error:
            raise UserError(f"{self.path}: cannot write the run folder: {error}") from None
        with lock:
            self._take(lock)
            yield

    def _take(self, lock: TextIO) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise UserError(
                    f"{self.path}: another process trains in this run folder; "
                    "choose another one with name=..."
                ) from None
            warnings.warn(
                f"{self.path}: this file system has no locks ({error.strerror}); see to it "
                "yourself that no second process trains here",
                stacklevel=2,
            )

    def begin(self, config: Config) -> Path | None:
        """Records the configuration and returns the checkpoint to go on from, if there is one.

        Raises:
            UserError: if the checkpoint was made under another configuration; names the keys. Or if
                there are checkpoints, and none of them is complete.
        """
        latest = self.world.by_first(lambda: self._begin(config))
        return None if latest is None else Path(latest)

    def _begin(self, config: Config) -> str | None:
        found = checkpoint.newest_complete(self.path)
        if found.checkpoint is not None:
            saved = _completed(checkpoint.read_state(found.checkpoint).get("config"))
            differing = _differences(saved, as_json(config))
            if differing:
                raise UserError(
                    f"{self.path}: this run was started with {'; '.join(differing)}. Use the same "
                    "values to resume it, or name=... for a new run"
                )
        elif found.damaged:
            raise UserError(
                f"{self.path}: no checkpoint of this run is complete; {found}. Bring one back, or "
                "choose name=... for a new run"
            )
        checkpoint.adopt(self.path, found)
        write_text(self.path / "config.yaml", config_yaml(config))
        return None if found.checkpoint is None else str(found.checkpoint)

    def check_space(self, stepper: Stepper) -> None:
        """Raises StorageError if there is no room for the next checkpoint of a run."""
        tensors = stepper.tensors()
        needed = checkpoint.num_bytes(tensors)
        if not tensors["optim"]:  # two moments, from the first step on
            needed += 2 * checkpoint.num_bytes({"ema": tensors["ema"]})
        self.world.by_first(lambda: checkpoint.check_space(self.path, needed, "a checkpoint"))

    def rewind(self, step: int) -> Path:
        """Puts the checkpoint of an earlier step in force again and returns its folder."""
        return Path(self.world.by_first(lambda: str(checkpoint.rewind(self.path, step))))

    def save(
        self,
        config: Config,
        stepper: Stepper,
        meter: Meter,
        result: dict[str, Any] | None,
        recovery: Recovery | None = None,
        *,
        best: Best | None = None,
        log_rows: int = 0,
    ) -> None:
        """Commits a checkpoint of where a run stands.

        Args:
            config: of the run.
            stepper: its state.
            meter: what the next row of the log averages so far.
            result: the run's score once it is done.
            recovery: where the run goes back to if it diverges. None: to here.
            best: the scores whose checkpoints are kept. None: of none.
            log_rows: rows of the log that belong to it.
        """
        recovery = recovery or Recovery(good_step=stepper.steps)
        best = best or Best()
        state = {
            **stepper.state_dict(),
            "meter": meter.state_dict(),
            "recovery": recovery.state_dict(),
            "best": best.state_dict(),
            "log_rows": log_rows,
            "result": result,
            "config": as_json(config),
            "versions": {"hvae": __version__, "torch": torch.__version__},
        }
        tensors = gathered(stepper.tensors(), self.world)

        def commit() -> None:
            checkpoint.save(
                self.path,
                stepper.steps,
                tensors,
                state,
                keep_last=config.train.keep_last,
                keep={s for s in (recovery.good_step, *best.steps) if s is not None},
                best=None if best.now is None else best.now.step,
            )

        self.world.by_first(commit)


def as_json(config: Config) -> dict[str, Any]:
    """Returns the configuration as JSON values."""
    return config.model_dump(mode="json")


def _completed(saved: Any) -> Any:
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
