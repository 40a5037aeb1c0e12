"""How far a model's samples are from real images, measured by all processes together."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hvae.data import ImageSource, complete_condition
from hvae.data.originals import Chosen
from hvae.inference.streams import Samples, Told
from hvae.metrics.checks import check_finite
from hvae.metrics.collect import Images, Measure, collect, part_of
from hvae.metrics.features import open_extractor
from hvae.metrics.measures import features_by
from hvae.metrics.moments import statistics
from hvae.metrics.reference import Reference
from hvae.metrics.score import Scoring
from hvae.models import HVAE
from hvae.ops.philox import derive_seed, make_rng
from hvae.training.config import EvalConfig
from hvae.training.distributed import World


def measured(
    measures: Mapping[str, Measure],
    images: Images,
    world: World,
    *,
    batch: int = 64,
    progress: Callable[[int], None] | None = None,
    seconds: dict[str, float] | None = None,
) -> dict[str, Tensor]:
    """Returns the rows of each measure for all images, the same in every process, on the CPU.

    Arguments as `hvae.metrics.collect.collect`; progress and seconds are those of this process.

    Raises:
        UserError: an image cannot be read, or has "features" that are not finite; which one.
    """
    part = part_of(len(images), world.rank, world.size)
    with world.agreed():
        found = collect(
            measures, images, part=part, batch=batch, progress=progress, seconds=seconds
        )
    rows = {name: world.rows(values) for name, values in found.items()}
    if "features" in rows:
        check_finite(rows["features"], [images.file(place) for place in range(len(images))])
    return rows


def told_by(model: HVAE, images: Chosen) -> Told | None:
    """Returns what a set says of its images `first` to `first + n - 1`, over and over again.

    None for a model that is told nothing.

    Raises:
        UserError: the model wants to know more than the set says.
    """
    if model.condition is None:
        return None
    source = images.labelled
    complete_condition(model.config.condition, source)

    def told(first: int, n: int) -> Tensor | None:
        places = [place % len(images) for place in range(first, first + n)]
        rows = torch.tensor([images.rows[place] for place in places])
        labels, conditions = (
            None if known is None else known[rows] for known in (source.labels, source.conditions)
        )
        originals = torch.stack([source[row] for row in rows.tolist()])
        rng = make_rng(derive_seed(0, "condition"), first)
        return model.condition_of(originals, labels, conditions, rng=rng)

    return told


class SampleQuality:
    """The distance between a run's samples and its test images, again and again.

    Args:
        config: how many samples, and by which network.
        test: the real images; as many as there are samples, if it has more.
        seed: of the run.
        world: its processes.

    Raises:
        UserError: the network or its weights are not there.
    """

    def __init__(self, config: EvalConfig, test: ImageSource, seed: int, world: World) -> None:
        self.config, self.world, self.seed = config, world, seed
        self.extractor = open_extractor(config.fid_features, device=world.device)
        self.images = Chosen(test, min(len(test), config.fid_samples), seed=seed)
        names = self.extractor.frechet_name, self.extractor.kernel_name
        self._scoring = Scoring(("fid",), *names)
        self._real: Reference | None = None

    def score(self, model: HVAE) -> dict[str, Any]:
        """Returns what a row of the log says of a model's samples at temperature 1."""
        began = time.monotonic()
        if self._real is None:
            features = self._features(self.images)
            self._real = Reference(statistics(features).factored(), features=features)
        told = told_by(model, self.images)
        fake = self._features(Samples(model, self.config.fid_samples, seed=self.seed, told=told))
        (score,) = self._scoring(fake, self._real)
        return {
            **score.record(),
            "n_fake": len(fake),
            "n_real": len(self.images),
            "features": self.extractor.name,
            "features_sha256": self.extractor.sha256,
            "protocol": self.extractor.protocol,
            "seconds": time.monotonic() - began,
        }

    def _features(self, images: Images) -> Tensor:
        measures = {"features": features_by(self.extractor)}
        return measured(measures, images, self.world, batch=self.config.batch)["features"]
