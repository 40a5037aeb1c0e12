"""The kernel distance, accumulated over batches and ranks."""

from typing import Any

from torch import Tensor

from hvae.metrics.feature_metric import CollectingMetric, Extractor
from hvae.metrics.kernel import kernel_distance


class KernelDistance(CollectingMetric):
    """The kernel distance between the features of real and of fake images: KID for any extractor.

    All features are kept. Further arguments as `FeatureMetric`.

        name         default  meaning
        subsets      100      how many to average over
        subset_size  1000     images of each, or all where there are less
        seed         0        of the subsets; the global generators are left alone
    """

    higher_is_better = False

    def __init__(
        self,
        features: Extractor | None = None,
        dim: int | None = None,
        *,
        subsets: int = 100,
        subset_size: int = 1000,
        seed: int = 0,
        reset_real_features: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(features, dim, reset_real_features=reset_real_features, **kwargs)
        self.subsets, self.subset_size, self.seed = subsets, subset_size, seed

    def compute(self) -> dict[str, Tensor]:
        """Returns float64 scalars `mean` and `sd`, see `hvae.metrics.kernel.KernelEstimate`.

        Raises:
            UserError: there are less than two images of a kind, or a number is too small.
        """
        estimate = kernel_distance(
            self.all_features(real=False),
            self.all_features(real=True),
            subsets=self.subsets,
            subset_size=self.subset_size,
            seed=self.seed,
        )
        return {name: self.scalar(value) for name, value in estimate._asdict().items()}
