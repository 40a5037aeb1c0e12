"""The `vdvae` preset against values of the published code (openai/vdvae, commit ea35b49).

The fixture holds weights under the published names, a batch, the noise, and the ELBO's parts in
float32 and float64; its JSON says how each was made.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hvae.models import HVAE, ModelConfig
from hvae.models.decoder import Ladder

FIXTURE = Path(__file__).parents[1] / "golden" / "vdvae_tiny"
NAMES = {
    "enc_blocks": "blocks",
    "dec_blocks": "blocks",
    ".enc.": ".posterior.",
    "out_net.out_conv": "out_conv",
}


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return load_file(FIXTURE.with_suffix(".safetensors"))


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    return json.loads(FIXTURE.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def model(tensors: dict[str, Tensor], values: dict[str, Any]) -> HVAE:
    settings = values["H"]
    config = ModelConfig(
        preset="vdvae",
        size=(settings["image_size"],) * 2,
        channels=settings["image_channels"],
        encoder=settings["enc_blocks"],
        decoder=settings["dec_blocks"],
        width=settings["width"],
        z_channels=settings["zdim"],
    )
    model = HVAE(config)
    resolutions = sorted(model.decoder.widths)
    named = {}
    for name, tensor in tensors.items():
        if not name.startswith(("encoder.", "decoder.")):
            continue
        for published, ours in NAMES.items():
            name = name.replace(published, ours)
        stem, _, index = name.partition("bias_xs.")
        named[f"{stem}bias_maps.{resolutions[int(index)]}" if index else name] = tensor
    model.load_state_dict(named)
    return model


def ladder(model: HVAE, tensors: dict[str, Tensor], dtype: torch.dtype) -> Ladder:
    model = model.to(dtype)
    features = model.encoder(tensors["x"].movedim(-1, 1).to(dtype))
    eps = [tensors[f"eps.{group}"].to(dtype) for group in range(model.num_groups)]
    return model.decoder(len(eps[0]), torch.zeros(2, dtype=torch.int64), features=features, eps=eps)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.float64, 1e-12)], ids=str
)
def test_kl_of_every_group(model, tensors, values, dtype, tolerance):
    expected = values[str(dtype).removeprefix("torch.")]
    kl = torch.stack(ladder(model, tensors, dtype).kl, 1)
    assert kl.mean(0).tolist() == pytest.approx(expected["kl_per_layer"], rel=tolerance)
    assert kl.sum(1).mean().item() / model.num_dims == pytest.approx(
        expected["rate"], rel=tolerance
    )


# The published target is rounded to float32, ours is the exact level.
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-8)], ids=str
)
@pytest.mark.parametrize("bits", [8, 5])
def test_distortion_of_every_image(model, tensors, values, dtype, tolerance, bits):
    params = ladder(model, tensors, dtype).params
    likelihood = type(model.likelihood)(3, bits=bits)
    pixels = tensors["pixels"].movedim(-1, 1)
    nll = -likelihood(params).log_prob(pixels) / model.num_dims
    expected = values["distortion_variants"]["per_image"][f"exact_{bits}bit"]
    assert nll.tolist() == pytest.approx(expected, rel=tolerance)
