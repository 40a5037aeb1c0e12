"""The feature maps that a trained network computes on its way, differentiable in the image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hvae.errors import UserError

_EPS = 1e-10


class FeatureMaps:
    """The last map of each resolution that a frozen network computes, above one position.

    No module: the network is nobody's weight, and belongs in no checkpoint.

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
        # A padded map is the one before it once more, and of another size.
        self.watched = [m for m in network.modules() if not isinstance(m, nn.ConstantPad2d)]
        with torch.no_grad():
            maps = self._last(like.new_zeros(1, 3, resolution, resolution))
        if not maps:
            raise UserError(
                "features: wanted a network with maps of several resolutions, such as lite0 or "
                f"inception; {type(network).__name__} has none"
            )
        self.channels = [each.shape[1] for each in maps]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Returns maps (N, `channels[i]`, h, w), of root mean square 1 over channels at each place.

        Args:
            images: (N, 1 | 3, H, W) in [-1, 1].
        """
        x = images.expand(-1, 3, -1, -1)
        side = (self.resolution, self.resolution)
        x = 127.5 * (F.interpolate(x, side, mode="bilinear", antialias=True) + 1)
        mean, std = (x.new_tensor(value).view(3, 1, 1) for value in (self.mean, self.std))
        x = ((x - mean) / std).contiguous(memory_format=torch.channels_last)
        maps = self._last(x)
        return [each * (each.square().mean(1, keepdim=True) + _EPS).rsqrt() for each in maps]

    def _last(self, x: Tensor) -> list[Tensor]:
        """The maps of a pass. Modules may be called any number of times."""
        last: dict[torch.Size, Tensor] = {}

        def see(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
                last[output.shape[2:]] = output

        hooks = [module.register_forward_hook(see) for module in self.watched]
        try:
            self.network(x)
        finally:
            for hook in hooks:
                hook.remove()
        return list(last.values())
