"""The published VDVAE models as shipped configurations, counted on the meta device."""

from pathlib import Path

import pytest
import torch
import yaml

from hvae.models import HVAE, ModelConfig

CONFIGS = Path(__file__).parents[2] / "configs" / "vdvae"

# name: parameters, tensors, latent numbers of an image
PUBLISHED = {
    "cifar10": (39_145_700, 1393, 412_432),
    "imagenet32": (119_280_868, 2423, 765_216),
    "imagenet64": (125_005_860, 2482, 1_451_040),
    "ffhq256": (114_874_852, 2272, 4_470_816),
    "ffhq1024": (109_366_904, 2392, 27_588_640),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_the_published_size(name):
    parameters, tensors, latents = PUBLISHED[name]
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    size = (config["data"]["size"],) * 2
    settings = {**config["model"], "size": size, "channels": config["data"]["channels"]}
    with torch.device("meta"):
        model = HVAE(ModelConfig.model_validate(settings))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors
    assert sum(torch.Size(shape).numel() for shape in model.latent_shapes) == latents


def test_every_published_model_is_shipped():
    assert {file.stem for file in CONFIGS.glob("*.yaml")} == PUBLISHED.keys()
