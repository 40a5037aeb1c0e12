"""What a run still has to see, batch by batch."""

from collections.abc import Generator

from torch import Tensor

from hvae.data import ImageSource, Loader, Prefetcher, worker_count
from hvae.ops.philox import derive_seed, make_rng
from hvae.training.config import Config
from hvae.training.distributed import World
from hvae.training.metrics_log import Meter
from hvae.training.step import Stepper


def batches_left(
    config: Config, source: ImageSource, stepper: Stepper, world: World, meter: Meter
) -> Generator[tuple[int, tuple[Tensor, ...]], None, None]:
    """Yields what is left: the size of a batch, this process's images of it, their conditions.

    Conditions are there for a model that takes any. The last batch is cut to the length of the run.

    Args:
        config: of the run.
        source: its training images.
        stepper: says how many have been seen, and what the model is told of them.
        world: the processes that share every batch.
        meter: takes the seconds that each batch was waited for.
    """
    data, model = config.data, stepper.model
    loader = Loader(
        source,
        batch=data.batch,
        seed=derive_seed(config.seed, "data"),
        flip=data.flip,
        workers=worker_count(data.workers, model.device),
        rank=world.rank,
        ranks=world.size,
    )
    seed = derive_seed(config.seed, "condition")
    left = loader.batches(stepper.images, config.train.images)
    with Prefetcher(left, model.device) as batches:
        for batch in batches:
            meter.add(wait=batches.waited)
            x = batch.images
            rng = make_rng(seed, batch.position, model.device)
            cond = model.condition_of(x, batch.labels, batch.conditions, rng=rng)
            yield batch.total, ((x,) if cond is None else (x, cond))
