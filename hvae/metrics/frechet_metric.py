"""The Frechet distance, accumulated over batches and ranks."""

from typing import Any

from torch import Tensor

from hvae.metrics.feature_metric import Extractor, FeatureMetric
from hvae.metrics.frechet import frechet_distance
from hvae.metrics.moments import Moments, merged


class FrechetDistance(FeatureMetric):
    """The Frechet distance between the features of real and of fake images: FID for any extractor.

    Memory does not grow with the number of images: mean and scatter of both kinds are kept, in
    float64 from the first sum on. Arguments as `FeatureMetric`.

    >>> import torch
    >>> metric = FrechetDistance(dim=1)
    >>> metric.update(torch.tensor([[0.0], [2.0]]), real=True)
    >>> metric.update(torch.tensor([[3.0], [5.0]]), real=False)
    >>> metric.compute()
    tensor(9., dtype=torch.float64)
    """

    higher_is_better = False

    real_moments: Tensor
    fake_moments: Tensor

    def __init__(
        self,
        features: Extractor | None = None,
        dim: int | None = None,
        *,
        reset_real_features: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(features, dim, reset_real_features=reset_real_features, **kwargs)
        for name in ("real_moments", "fake_moments"):
            self.add_state(name, Moments.empty(self.dim).packed, dist_reduce_fx=merged)

    def update(self, x: Tensor, real: bool) -> None:
        """Adds images, or features where there is no extractor; see `FeatureMetric`.

        Raises:
            ValueError, UserError: as `FeatureMetric.extract`.
        """
        moments = Moments(self.real_moments if real else self.fake_moments)
        moments.update(self.extract(x, first=moments.count))

    def compute(self) -> Tensor:
        """Returns the distance, a float64 scalar.

        Raises:
            UserError: there are less than two images of a kind.
        """
        fake = Moments(self.fake_moments).statistics("fake images")
        real = Moments(self.real_moments).statistics("real images")
        return self.scalar(frechet_distance(fake, real))
