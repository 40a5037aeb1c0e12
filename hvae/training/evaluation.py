"""Scoring a model, with what its latents did, or the place where its numbers stop being finite."""

from contextlib import suppress
from dataclasses import asdict
from typing import Any

from hvae.data import ImageSource
from hvae.errors import HvaeError, UserError
from hvae.metrics.likelihood import LikelihoodResult, evaluate_likelihood
from hvae.models import HVAE
from hvae.training.diagnostics import LatentStatistics, collapsed_groups
from hvae.training.locate import Finder, finding
from hvae.training.recovery import NotScored


def evaluate(
    model: HVAE,
    source: ImageSource,
    *,
    seed: int,
    importance: int,
    images: int | None,
    batch: int,
) -> tuple[LikelihoodResult, dict[str, Any]]:
    """Returns the score of a model and what a row of the log says of it.

    Arguments are those of `evaluate_likelihood`.

    Raises:
        NotScored: if an image has no finite score; the images are then scored again to find where.
    """

    def score() -> LikelihoodResult:
        return evaluate_likelihood(
            model, source, seed=seed, importance=importance, images=images, batch=batch
        )

    statistics = LatentStatistics(model)
    try:
        with statistics.watching():
            result = score()
    except UserError:
        raise
    except HvaeError as error:
        finder = Finder()
        with suppress(HvaeError), finding(model, finder):
            score()
        raise NotScored(str(error), finder.place) from None
    collapsed = collapsed_groups(result.kl_per_group)
    return result, {**asdict(result), "collapsed_groups": collapsed, **statistics.row()}
