"""The published VDVAE models, counted on the meta device."""

from typing import Any

import pytest
import torch

from hvae.models import HVAE, ModelConfig

# name: settings, parameters, tensors, latent numbers of an image
PUBLISHED: dict[str, tuple[dict[str, Any], int, int, int]] = {
    "cifar10": (
        {
            "size": (32, 32),
            "width": 384,
            "encoder": "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3",
            "decoder": "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21",
        },
        39_145_700,
        1393,
        412_432,
    ),
    "imagenet32": (
        {
            "size": (32, 32),
            "width": 512,
            "encoder": "32x15,32d2,16x9,16d2,8x8,8d2,4x6,4d4,1x6",
            "decoder": "1x2,4m1,4x4,8m4,8x9,16m8,16x19,32m16,32x40",
        },
        119_280_868,
        2423,
        765_216,
    ),
    "imagenet64": (
        {
            "size": (64, 64),
            "width": 512,
            "encoder": "64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5",
            "decoder": "1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12",
        },
        125_005_860,
        2482,
        1_451_040,
    ),
    "ffhq256": (
        {
            "size": (256, 256),
            "width": 512,
            "encoder": "256x3,256d2,128x8,128d2,64x12,64d2,32x17,32d2,16x7,16d2,8x5,8d2,4x5,4d4,"
            "1x4",
            "decoder": "1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x21,64m32,64x13,128m64,128x7,256m128",
        },
        114_874_852,
        2272,
        4_470_816,
    ),
    "ffhq1024": (
        {
            "size": (1024, 1024),
            "width": 16,
            "widths": {512: 32, 256: 64, **dict.fromkeys((128, 64, 32, 16, 8, 4, 1), 512)},
            "likelihood": {"mixtures": 2},
            "encoder": "1024x1,1024d2,512x3,512d2,256x5,256d2,128x7,128d2,64x10,64d2,32x14,32d2,"
            "16x7,16d2,8x5,8d2,4x5,4d4,1x4",
            "decoder": "1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x20,64m32,64x14,128m64,128x7,"
            "256m128,256x2,512m256,1024m512",
        },
        109_366_904,
        2392,
        27_588_640,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_the_published_size(name):
    settings, parameters, tensors, latents = PUBLISHED[name]
    config = ModelConfig(preset="vdvae", channels=3, z_channels=16, **settings)
    with torch.device("meta"):
        model = HVAE(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors
    assert sum(torch.Size(shape).numel() for shape in model.latent_shapes) == latents
