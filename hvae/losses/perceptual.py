"""Distance of images in the feature maps of a network that was trained on something else."""

import torch
from torch import Tensor

from hvae.nn.feature_maps import FeatureMaps


class Perceptual:
    """The mean over resolutions of |f(x~) / |f(x~)| - f(x) / |f(x)||^2, norms over channels.

    LPIPS without its learned weights (Zhang et al., arXiv 1801.03924, equation 1), on the last map
    of each resolution that the network computes.

    Args:
        maps: of the network.
    """

    def __init__(self, maps: FeatureMaps) -> None:
        self.maps = maps

    def __call__(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Returns the mean distance, a scalar, differentiable in `made`.

        Args:
            made: (N, 1 | 3, H, W) in [-1, 1].
            wanted: the same, taken without gradients.
        """
        with torch.no_grad():
            target = self.maps(wanted)
        pairs = zip(self.maps(made), target, strict=True)
        # Maps have a root mean square of 1, the norm that is meant is 1.
        return torch.stack([(a - b).square().mean() for a, b in pairs]).mean()
