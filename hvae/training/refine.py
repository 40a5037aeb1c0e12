"""`refine`: the adversarial stages of a trained run, resumable at any point."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from hvae import checkpoint
from hvae.data import open_source
from hvae.errors import UserError
from hvae.files import locked
from hvae.training.config_file import load_config
from hvae.training.distributed import launched
from hvae.training.refine_prior import PriorRefinement
from hvae.training.refinement import Refinement, RefineResult
from hvae.training.signals import stop_on_signal


def refine(
    run: Path, overrides: Sequence[str] = (), *, device: torch.device | str | None = None
) -> RefineResult:
    """Trains a refiner for a run, from its last checkpoint if there is one.

    On one machine and device kind the result is the same, bit for bit, however often it was stopped
    on the way. The run's weights, and so its likelihood, are not touched: `refine.unfreeze=prior`
    makes another run of its own.

    Args:
        run: a finished run folder.
        overrides: `refine.key=value` and `data.workers=...`; the rest is the run's own.
        device: None takes the GPU if there is one.

    Raises:
        UserError: there is no such run, a key is not of this stage, the stage was begun with
            others, or there are several processes.
        TrainingError: it keeps doing harm, or diverges.
    """
    if launched() > 1:
        raise UserError("hvae refine trains in one process; start it without torchrun")
    for text in overrides:
        if not text.startswith(("refine.", "data.workers=")):
            raise UserError(f"{text}: hvae refine takes refine.KEY=VALUE and data.workers=...")
    weights = checkpoint.find_weights(run)
    config = load_config(_config_file(run), overrides)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = checkpoint.load_weights(weights, device=device)
    train, test = open_source(config.data, "train"), open_source(config.data, "test")
    stage = PriorRefinement if config.refine.unfreeze == "prior" else Refinement
    folder = stage.folder_of(run)
    with (
        _locked(folder),
        stop_on_signal() as stop,
        checkpoint.full_disk_is_told(folder),
    ):
        return stage(run, weights, config, model, train, test).go(stop)


def _config_file(run: Path) -> Path:
    file = run / "config.yaml"
    if not file.is_file():
        raise UserError(f"{run}: wanted a run folder; it holds no config.yaml")
    return file


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder, made if missing, against a second stage."""
    with ExitStack() as held:
        try:
            folder.mkdir(exist_ok=True)
            held.enter_context(locked(folder / ".lock"))
        except BlockingIOError:
            raise UserError(f"{folder}: another process refines this run") from None
        except OSError as error:
            raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
        yield
