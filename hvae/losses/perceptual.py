"""Distance of images in the feature maps of a network that was trained on something else."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hvae.errors import UserError

_EPS = 1e-10


class Perceptual:
    """The mean over resolutions of |f(x~) / |f(x~)| - f(x) / |f(x)||^2, norms over channels.

    LPIPS without its learned weights (Zhang et al., arXiv 1801.03924, equation 1), on the last map
    of each resolution that the network computes.

    Args:
        network: frozen, takes (N, 3, R, R).
        resolution: R, which images are brought to.
        mean, std: by channel; the network takes (x - mean) / std of x in 0..255.

    Raises:
        UserError: the network computes no maps.
    """

    def __init__(
        self,
        network: nn.Module,
        resolution: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        self.network, self.resolution, self.mean, self.std = network, resolution, mean, std
        like = next(network.parameters())
        last: dict[torch.Size, nn.Module] = {}
        with self._watching(list(network.modules())) as seen, torch.no_grad():
            network(like.new_zeros(1, 3, resolution, resolution))
            for module, maps in seen:
                last[maps.shape[2:]] = module
        self.modules = [module for shape, module in last.items() if shape.numel() > 1]
        if not self.modules:
            raise UserError(
                "perceptual: wanted a network with maps of several resolutions, such as lite0 or "
                f"inception; {type(network).__name__} has none"
            )

    def __call__(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Returns the mean distance, a scalar, differentiable in `made`.

        Args:
            made: (N, 1 | 3, H, W) in [-1, 1].
            wanted: the same, taken without gradients.
        """
        with torch.no_grad():
            target = self._maps(wanted)
        pairs = zip(self._maps(made), target, strict=True)
        return torch.stack([(a - b).square().sum(1).mean() for a, b in pairs]).mean()

    def _maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps of each resolution, of unit norm at each place."""
        x = images.expand(-1, 3, -1, -1)
        side = (self.resolution, self.resolution)
        x = 127.5 * (F.interpolate(x, side, mode="bilinear", antialias=True) + 1)
        mean, std = (x.new_tensor(value).view(3, 1, 1) for value in (self.mean, self.std))
        with self._watching(self.modules) as seen:
            self.network((x - mean) / std)
        return [maps / (maps.square().sum(1, keepdim=True) + _EPS).sqrt() for _, maps in seen]

    @contextmanager
    def _watching(self, modules: list[nn.Module]) -> Iterator[list[tuple[nn.Module, Tensor]]]:
        """Lends a list that fills with the maps that modules compute, as they do."""
        seen: list[tuple[nn.Module, Tensor]] = []

        def see(module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                seen.append((module, output))

        hooks = [module.register_forward_hook(see) for module in modules]
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()
