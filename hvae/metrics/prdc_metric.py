"""Precision, recall, density and coverage, accumulated over batches and ranks."""

from typing import Any

from torch import Tensor

from hvae.metrics.feature_metric import CollectingMetric, Extractor
from hvae.metrics.neighbours import prdc


class PrecisionRecall(CollectingMetric):
    """Precision, recall, density and coverage of fake images, by nearest neighbours of features.

    All features are kept, and time grows with the square of their number: give it at most
    `hvae.metrics.neighbours.MOST_POINTS` of each kind. Further arguments as `FeatureMetric`.

        name       default  meaning
        k          3        neighbours that reach of precision and recall
        density_k  5        the same for density and coverage
    """

    higher_is_better = True

    def __init__(
        self,
        features: Extractor | None = None,
        dim: int | None = None,
        *,
        k: int = 3,
        density_k: int = 5,
        reset_real_features: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(features, dim, reset_real_features=reset_real_features, **kwargs)
        self.k, self.density_k = k, density_k

    def compute(self) -> dict[str, Tensor]:
        """Returns float64 scalars `precision`, `recall`, `density`, `coverage`.

        Raises:
            UserError: there are no more images of a kind than neighbours are wanted.
        """
        fake, real = self.all_features(real=False), self.all_features(real=True)
        scores = prdc(fake, real, k=self.k, density_k=self.density_k)
        return {name: self.scalar(value) for name, value in scores._asdict().items()}
