"""Trackers: copies of the log for TensorBoard, Weights & Biases and trackio.

`metrics.jsonl` is the record of a run. A tracker is a copy of it to look at: it is fed after a row
is on disk, on an axis of images, and whatever goes wrong in one ends that copy alone.
"""

import importlib.util
import json
import math
import secrets
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvae.errors import UserError
from hvae.files import write_text
from hvae.models.layout import Layout
from hvae.training.config import Config

# What must be importable for each, and how to get it.
_PACKAGES = {
    "tensorboard": ("tensorboard", "pip install 'hvae[tensorboard]'"),
    "wandb": ("wandb", "pip install wandb"),
    "trackio": ("trackio", "pip install trackio"),
}
# Numbers of a row that say what it is about, or never change during a run.
_NO_SCALARS = {"step", "images", "seed", "num_dims", "num_images", "importance"}


class Tracker(Protocol):
    """What the rows and sheets of a run are copied to; any method may raise."""

    def start(self, config: Config, folder: Path, images: int) -> None:
        """Begins after `images` images; what was tracked past them is of an earlier attempt."""

    def scalars(self, values: Mapping[str, float], images: int) -> None:
        """Takes finite numbers by name."""

    def picture(self, name: str, pixels: NDArray[np.uint8], images: int) -> None:
        """Takes a sheet, (H, W) grey or (H, W, 3)."""

    def close(self) -> None:
        """Ends the copy."""


class TensorBoard:
    """Event files in `<run>/tensorboard/`; points past a checkpoint are purged at a resume."""

    def start(self, config: Config, folder: Path, images: int) -> None:
        """Opens an event file of its own."""
        from torch.utils.tensorboard import SummaryWriter

        logs = str(folder / "tensorboard")
        self._writer: Any = SummaryWriter(logs, purge_step=images + 1 if images else None)

    def scalars(self, values: Mapping[str, float], images: int) -> None:
        """Writes at once: a kill must not leave a gap before the checkpoint it goes on from."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, images)
        self._writer.flush()

    def picture(self, name: str, pixels: NDArray[np.uint8], images: int) -> None:
        """Adds the sheet."""
        layout = "HW" if pixels.ndim == 2 else "HWC"
        self._writer.add_image(name, pixels, images, dataformats=layout)

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()


class WandbLike:
    """Weights & Biases, or trackio, which has its interface.

    A resumed run goes on as the one it was. Neither service can take points back, so a file in the
    run folder remembers how far they reach: rows that a resumed run repeats are not sent again.
    """

    def __init__(self, package: str) -> None:
        self._package = package

    def start(self, config: Config, folder: Path, images: int) -> None:
        """Opens the run, or goes on with it."""
        self._module: Any = import_module(self._package)
        self._file = folder / f".{self._package}.json"
        known = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._id: str = known.get("id") or secrets.token_hex(8)
        self._sent: int = known.get("images", -1)
        identity = {"id": self._id, "dir": str(folder)} if self._package == "wandb" else {}
        self._run: Any = self._module.init(
            project="hvae",
            name=config.name,
            config=config.model_dump(mode="json"),
            resume="allow",
            **identity,
        )

    def scalars(self, values: Mapping[str, float], images: int) -> None:
        """Logs at a step of so many images."""
        self._log(values, images)

    def picture(self, name: str, pixels: NDArray[np.uint8], images: int) -> None:
        """Logs the sheet."""
        self._log({name: self._module.Image(pixels)}, images)

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()

    def _log(self, values: Mapping[str, Any], images: int) -> None:
        if images > self._sent:
            self._run.log(dict(values), step=images)
            write_text(self._file, json.dumps({"id": self._id, "images": images}))


def check_installed(names: Sequence[str]) -> None:
    """Checks that the package of every tracker is there.

    Raises:
        UserError: naming the first that is not, and the command that installs it.
    """
    for name in names:
        package, command = _PACKAGES[name]
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"train.log_to asks for {name}, but the package {package} is not installed: "
                f"{command}, or leave {name} out; metrics.jsonl is written in any case"
            )


class Trackers:
    """The trackers of a run. None of them can stop or change it: one that fails is given up.

    Args:
        config: of the run, complete; `train.log_to` names the trackers.
        folder: of the run.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._trackers: dict[str, Tracker] = {
            name: TensorBoard() if name == "tensorboard" else WandbLike(name)
            for name in config.train.log_to
        }
        self._running: dict[str, Tracker] = {}
        blocks = Layout.parse(config.model).decoder
        self._groups = [f"{i:02}_at_{block.resolution}" for i, block in enumerate(blocks, 1)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def begin(self, images: int) -> None:
        """Starts all, or starts again after a roll-back to `images` images."""
        self._close()
        self._running = dict(self._trackers)
        self._each(lambda tracker: tracker.start(self._config, self._folder, images))

    def row(self, row: Mapping[str, Any]) -> None:
        """Copies the numbers in a row of the log, and the KL of every group by its name."""
        if not self._running or row["kind"] == "alarm":
            return
        values = scalars_of(row, self._groups)
        self._each(lambda tracker: tracker.scalars(values, row["images"]))

    def sheets(self, files: Mapping[str, Path], images: int) -> None:
        """Copies sheets by name."""
        for name, file in files.items() if self._running else ():
            self._sheet(f"sheets/{name}", file, images)

    def _sheet(self, name: str, file: Path, images: int) -> None:
        # Read within the call: a file that cannot be read must not stop the run either.
        self._each(lambda tracker: tracker.picture(name, _pixels(file), images))

    def _close(self) -> None:
        self._each(lambda tracker: tracker.close())
        self._running = {}

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._running.items()):
            try:
                with redirect_stdout(sys.stderr):  # results alone go to stdout
                    do(tracker)
            except Exception as error:  # whatever a service throws, the run goes on
                self._running.pop(name)
                self._trackers.pop(name, None)
                reason = " ".join(str(error).split()) or type(error).__name__
                warnings.warn(
                    f"{name} failed and is given up for this run, which goes on: {reason}",
                    stacklevel=2,
                )


def scalars_of(row: Mapping[str, Any], groups: Sequence[str]) -> dict[str, float]:
    """Returns the finite numbers of a row under the names trackers show.

    `train/<key>` and `test/<key>`; KL per group as `train_kl_per_group/<group>`, coarse to fine.
    """
    prefix = row.get("split", row["kind"])
    named = {f"{prefix}/{k}": v for k, v in row.items() if k not in _NO_SCALARS}
    kl = zip(groups, row.get("kl_per_group") or (), strict=False)
    named |= {f"{prefix}_kl_per_group/{group}": value for group, value in kl}
    return {name: float(v) for name, v in named.items() if _is_finite_number(v)}


def _pixels(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as sheet:
        return np.array(sheet)


def _is_finite_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
