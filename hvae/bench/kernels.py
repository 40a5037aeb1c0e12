"""All fused ops on one case each: what `hvae bench kernels` runs."""

from collections.abc import Iterator, Sequence

import torch

from hvae.bench import gaussian_latent, logistic_mixture
from hvae.bench.report import Comparison


def run(dtypes: Sequence[torch.dtype] = (torch.float32,), rounds: int = 15) -> Iterator[Comparison]:
    """Check and measure each op at its largest benchmark shape, on one thread.

    Raises:
        UserError: the kernels are not loaded.
        AssertionError: an op fails its check; no figure is given for it.
    """
    yield from gaussian_latent.run(gaussian_latent.SIZES[-1:], dtypes, rounds=rounds)
    yield from logistic_mixture.run(logistic_mixture.SHAPES[:1], dtypes, rounds=rounds)
