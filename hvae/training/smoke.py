"""A smoke run: two steps of a configuration on generated images of its true size.

It is a run like any other - loader, steps, log, checkpoint, evaluation, sheets, in a run folder -
except that it needs no data and takes as little time as the model allows.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from hvae.data import ImageSource, open_source
from hvae.data.generated import ShapesSource
from hvae.errors import HvaeError, UserError
from hvae.models import HVAE
from hvae.training.build import complete
from hvae.training.config import Config
from hvae.training.loop import fit_on
from hvae.training.memory import peak_memory_mib
from hvae.training.metrics_log import MetricsLog
from hvae.training.precision import uses_bf16

STEPS = 2
# Images in the generated splits; the order of training images needs no more.
_TRAIN, _TEST, _SAMPLES = 8, 1, 2


@dataclass(frozen=True)
class SmokeResult:
    """What a smoke run did.

    Attributes:
        name: of the configuration's run.
        run: the run folder; None if it was temporary and is gone.
        shape: (C, H, W) of the images.
        parameters: of the model.
        groups: latent groups.
        device: its kind and the precision of convolutions.
        step_seconds: of each step; the first one also pays for what happens once.
        step_memory_mib: peak memory by the end of the last step: of the process on a CPU, its
            libraries included, of the allocator on a GPU.
        memory_mib: peak memory of the whole smoke run, evaluation and samples included.
        bits_per_dim: ELBO of the one test image, by a model that has hardly been trained.
        seconds: of the whole smoke run.
    """

    name: str
    run: Path | None
    shape: tuple[int, ...]
    parameters: int
    groups: int
    device: str
    step_seconds: list[float]
    step_memory_mib: float
    memory_mib: float
    bits_per_dim: float
    seconds: float


def smoke(
    config: Config, *, keep: bool = False, device: torch.device | str | None = None
) -> SmokeResult:
    """Takes two steps of one image, evaluates one image and draws two samples.

    Args:
        config: of the run to try; its data are not read if it gives their size and channels.
        keep: leave the run folder `<runs_dir>/<name>`, which must not be there yet. Otherwise all
            is written to a temporary folder and removed.
        device: None takes the GPU if there is one.

    Raises:
        UserError: if the configuration does not fit together, the size of its images is not known,
            or the folder to keep exists.
        TrainingError: if a step or the score is not finite.
    """
    began = time.monotonic()
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    shape = _shape(config)
    with ExitStack() as temporary:
        if keep:
            folder = Path(config.runs_dir) / config.name
            if folder.exists():
                raise UserError(f"{folder} is there already; give the smoke run another name=...")
            runs_dir = config.runs_dir
        else:
            runs_dir = temporary.enter_context(TemporaryDirectory(prefix="hvae-smoke-"))
        config = _shortened(config, shape, runs_dir)
        train, test = ShapesSource("train", shape, _TRAIN), ShapesSource("test", shape, _TEST)
        result = fit_on(config, train, test, device=device, samples=_SAMPLES)
        if result.stopped or result.bits_per_dim is None:
            raise HvaeError("the smoke run was stopped")
        log = MetricsLog(result.run / "metrics.jsonl")
        rows, (score,) = log.rows("train"), log.rows("eval")
    with torch.device("meta"):
        model = HVAE(complete(config, train).model)
    return SmokeResult(
        name=config.name,
        run=result.run if keep else None,
        shape=shape,
        parameters=sum(p.numel() for p in model.parameters()),
        groups=model.num_groups,
        device=f"{device.type}, {'bf16' if uses_bf16(config.train, device) else 'fp32'}",
        step_seconds=[1 / row["images_per_second"] for row in rows],
        step_memory_mib=rows[-1]["memory_mib"],
        memory_mib=peak_memory_mib(device),
        bits_per_dim=score["elbo_bits_per_dim"],
        seconds=time.monotonic() - began,
    )


def _shape(config: Config) -> tuple[int, int, int]:
    """(C, H, W) of the configuration's images, which are looked at only where it does not say.

    Raises:
        UserError: if neither tells.
    """
    size, channels = config.data.height_width, config.data.channels
    if size is not None and channels is not None:
        return channels, *size
    try:
        source: ImageSource = open_source(config.data, "train")
    except UserError as error:
        raise UserError(
            f"--smoke needs the size of the images: give data.size=... and data.channels=..., or "
            f"their place ({error})"
        ) from None
    return source.shape


def _shortened(config: Config, shape: tuple[int, int, int], runs_dir: str) -> Config:
    """The configuration of the smoke run, which leaves the model and the steps as they are."""
    never = config.train.images + STEPS
    data: dict[str, Any] = {"source": "shapes", "batch": 1, "workers": 0, "size": shape[1:]}
    data |= {"channels": shape[0], "skip_bad": False}
    every = ("sample_every", "checkpoint_every", "eval_every")
    train = {"images": STEPS, "log_every": 1, "log_to": (), **dict.fromkeys(every, never)}
    return config.model_copy(
        update={
            "runs_dir": runs_dir,
            "data": config.data.model_copy(update=data),
            "train": config.train.model_copy(update=train),
            "eval": config.eval.model_copy(update={"batch": 1, "importance": 1}),
        }
    )
