"""From the rows that were measured of two sets to named scores."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from torch import Tensor

from hvae.errors import UserError
from hvae.metrics.frechet import frechet_distance, frechet_from_features
from hvae.metrics.infinity import frechet_infinity
from hvae.metrics.kernel import kernel_distance
from hvae.metrics.moments import Statistics, statistics
from hvae.metrics.neighbours import MOST_POINTS, prdc
from hvae.metrics.reference import Reference
from hvae.metrics.resampling import bootstrap
from hvae.metrics.sharpness import compare_sharpness

METRICS = ("fid", "kid", "prdc", "sharpness")

_FEW = 10_000  # below, a Frechet distance is mostly bias for good models


@dataclass(frozen=True)
class Score:
    """A number with its name, and what is known of its error.

    Attributes:
        metric: what it is called: "FID", "KID", "precision", ...
        value: as the metric defines it, not scaled.
        stderr: of the extrapolation's intercept.
        sd: over the subsets of a kernel distance.
        low, high: of a bootstrap interval.
    """

    metric: str
    value: float
    stderr: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None

    def record(self) -> dict[str, float | str]:
        """What is known, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Scoring:
    """Which scores, and how.

    Attributes:
        metrics: among `METRICS`.
        frechet_name, kernel_name: what distances of these features are called.
        infinity: also extrapolate the Frechet distance.
        resamples: of the fakes, for bootstrap intervals; 0 gives none.
        seed: of subsets and resamples.

    Raises:
        UserError: there is no such metric, or one resample only.
    """

    metrics: tuple[str, ...]
    frechet_name: str
    kernel_name: str
    infinity: bool = False
    resamples: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the names."""
        for name in self.metrics:
            if name not in METRICS:
                raise UserError(f"metrics: wanted some of {', '.join(METRICS)}, got {name!r}")
        if self.resamples == 1:
            raise UserError("bootstrap: wanted 0 or at least 2 resamples, got 1")

    def __call__(self, fake: Tensor | Statistics, real: Reference) -> list[Score]:
        """Returns the scores of features (N, d), or of their statistics, against a reference.

        Those of sharpness are not of features; see `sharpness_scores`.

        Raises:
            UserError: a score needs features where only statistics are at hand, or cannot be
                computed of so few.
        """
        scorers = {"fid": self._frechet, "kid": self._kernel, "prdc": self._neighbours}
        return [
            score
            for name, scorer in scorers.items()
            if name in self.metrics
            for score in scorer(fake, real)
        ]

    def _frechet(self, fake: Tensor | Statistics, real: Reference) -> Iterator[Score]:
        if isinstance(fake, Statistics):
            if self.infinity or self.resamples:
                raise UserError("infinity and bootstrap resample A, of which only statistics came")
            yield Score(self.frechet_name, frechet_distance(fake, real.statistics))
            return
        few = min(len(fake), real.statistics.count) <= fake.shape[1]
        if few and real.features is not None:
            value = frechet_from_features(fake, real.features)
        else:
            value = frechet_distance(statistics(fake), real.statistics)
        interval = self._interval(
            lambda rows: frechet_distance(statistics(rows), real.statistics), fake
        )
        yield Score(self.frechet_name, value, **interval)
        if self.infinity:
            limit = frechet_infinity(fake, real.statistics, seed=self.seed)
            yield Score(f"{self.frechet_name}-infinity", limit.value, stderr=limit.stderr)

    def _kernel(self, fake: Tensor | Statistics, real: Reference) -> Iterator[Score]:
        a, b = _features("kid", fake, real)
        estimate = kernel_distance(a, b, seed=self.seed)
        yield Score(self.kernel_name, estimate.mean, sd=estimate.sd)

    def _neighbours(self, fake: Tensor | Statistics, real: Reference) -> Iterator[Score]:
        a, b = _features("prdc", fake, real)
        most = min(len(a), len(b), MOST_POINTS)
        for name, value in prdc(_spread(a, most), _spread(b, most))._asdict().items():
            yield Score(name, value)

    def _interval(self, metric: Callable[[Tensor], float], fake: Tensor) -> dict[str, float]:
        if not self.resamples:
            return {}
        low, high = bootstrap(metric, fake, resamples=self.resamples, seed=self.seed)
        return {"low": low, "high": high}


def sharpness_scores(fake: Tensor, real: Tensor) -> list[Score]:
    """Returns what `compare_sharpness` gives for two sets of `sharpness_rows`.

    Raises:
        UserError: a set has images of another size, or the reals are blank.
    """
    if fake.shape[1] != real.shape[1]:
        raise UserError("sharpness compares images of one size; give --size")
    found = compare_sharpness(fake.mean(0), real.mean(0))
    if not all(value.isfinite() for value in found.values()):
        raise UserError("sharpness is that of the real images, and these are blank")
    return [Score(name, value.item()) for name, value in found.items()]


def cautions(
    n_fake: int | None, n_real: int | None, dim: int, metrics: tuple[str, ...]
) -> list[str]:
    """Returns what to know before a number is believed, from the counts alone.

    Args:
        n_fake, n_real: images of each kind; None where a file does not say.
        dim: width of the features.
        metrics: that are computed.
    """
    found = []
    counts = [count for count in (n_fake, n_real) if count is not None]
    least = min(counts, default=_FEW)
    if "fid" in metrics and least <= dim:
        found.append(
            f"{least} images are no more than the {dim} features: the covariance is "
            "rank-deficient and the distance mostly bias; take more, or kid"
        )
    elif "fid" in metrics and least < _FEW:
        found.append(
            f"{least} images bias the distance upwards; compare it at equal numbers only, and put "
            f"no fewer than {_FEW} into tables"
        )
    if "prdc" in metrics and len(counts) == 2 and max(counts) > 1.1 * least:
        found.append(
            f"precision, recall, density and coverage took {min(least, MOST_POINTS)} images of "
            f"each kind, out of {n_fake} and {n_real}"
        )
    return found


def _features(metric: str, fake: Tensor | Statistics, real: Reference) -> tuple[Tensor, Tensor]:
    if isinstance(fake, Statistics) or real.features is None:
        raise UserError(
            f"{metric} compares images, and a statistics file holds only their mean and "
            "covariance; give the images"
        )
    return fake, real.features


def _spread(rows: Tensor, count: int) -> Tensor:
    """Some rows, evenly spaced: those of a set may be sorted by class."""
    places = [len(rows) * place // count for place in range(count)]
    return rows[places]
