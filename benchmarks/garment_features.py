"""Features of a small network that knows garments, and nothing else, for a second opinion.

cd benchmarks && hvae fid ../runs/fashion-mnist --features garment_features:GarmentFeatures -n 5000
python benchmarks/refinement_study.py RUN --work FOLDER --features garment_features:GarmentFeatures

A refiner whose discriminator looked through a network trained on ImageNet may please all such
networks. This one is trained on the classes of `fashion-mini` (a minute or two on one core, each
time anew from one seed), and shares neither data nor architecture with them.
"""

from typing import cast

import torch
from class_agreement import scaled, trained_classifier
from torch import Tensor, nn

from hvae.data import DataConfig, open_source


class GarmentFeatures(nn.Module):
    """The last map of the classifier, averaged over the image: 128 features."""

    dim = 128

    def __init__(self) -> None:
        super().__init__()
        train = open_source(DataConfig(source="fashion-mini"), "train")
        with torch.random.fork_rng(devices=[]):
            classifier = cast(nn.Sequential, trained_classifier(train, epochs=8, seed=0))
        self.trunk = classifier[:9]

    def forward(self, images: Tensor) -> Tensor:
        """Returns features, float32 (N, 128), of uint8 (N, 3, 28, 28), whose channels are equal."""
        maps: Tensor = self.trunk(scaled(images[:, :1]))
        return maps.mean((2, 3))
