"""`fit`: a run from its configuration to its score, resumable at any point."""

import torch

from hvae import checkpoint
from hvae.data import ImageSource, complete_condition, open_source
from hvae.training.build import build_model, complete
from hvae.training.config import Config
from hvae.training.cuda_graph import check_graphs
from hvae.training.distributed import World
from hvae.training.run import FitResult, Run
from hvae.training.run_folder import RunFolder
from hvae.training.sample_quality import SampleQuality
from hvae.training.sharding import birthplace
from hvae.training.signals import stop_on_signal
from hvae.training.trackers import Trackers, check_installed


def fit(
    config: Config, *, device: torch.device | str | None = None, world: World | None = None
) -> FitResult:
    """Trains the run a configuration describes, from its last checkpoint if it has one.

    On one machine and device kind the result is the same, bit for bit, however often the run was
    stopped or killed on the way. SIGINT and SIGTERM save a checkpoint before returning.

    Args:
        config: the run; sizes it leaves open are taken from the data.
        device: None takes the GPU if there is one.
        world: the processes that train together, from `joined`; `device` is then theirs. All call
            this alike, and only the first one writes.

    Raises:
        UserError: if the data, the layout or the run folder do not fit; nothing is written then.
        TrainingError: if training cannot go on.
        StorageError: if the disk is full; what was saved before is as it was.
    """
    world = world or World(device=device)
    with world.noticing_losses(), world.agreed():
        check_installed(config.train.log_to)
        train, test = open_source(config.data, "train"), open_source(config.data, "test")
    return fit_on(config, train, test, world=world)


def fit_on(
    config: Config,
    train: ImageSource,
    test: ImageSource,
    *,
    device: torch.device | str | None = None,
    world: World | None = None,
    samples: int | None = None,
) -> FitResult:
    """As `fit`, on images that are open already.

    Args:
        config: the run.
        train: its training images.
        test: what it is scored on.
        device: None takes the GPU if there is one.
        world: as in `fit`.
        samples: on a sheet. None: as many as fill one.

    Raises:
        UserError, TrainingError: as `fit`.
    """
    world = world or World(device=device)
    with world.noticing_losses():
        with world.agreed():
            check_graphs(config.train, world.device, world.size)
            config = complete(config, train)
            complete_condition(config.model.condition, test)  # a check: both splits tell the same
            model = build_model(config, birthplace(world, config.train.sharding))
            every = config.eval.fid_every
            quality = SampleQuality(config.eval, test, config.seed, world) if every else None
        folder = RunFolder(config, world)
        with (
            folder.locked(),
            stop_on_signal(patient=world.size > 1) as stop,
            checkpoint.full_disk_is_told(folder.path),
            Trackers(config, folder.path) as trackers,
        ):
            run = Run(config, folder, model, train, test, world, trackers, quality, samples)
            return run.go(stop)
