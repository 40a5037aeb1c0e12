"""A short run learns: more than the pixel histogram, from every start."""

import math

import pytest
import torch

from hvae.data import open_source
from hvae.training import fit


def histogram_bits(source) -> float:
    """Bits per dimension of the best model that knows no pixel from another."""
    images = torch.stack([source[i] for i in range(len(source))])
    share = torch.bincount(images.flatten().long(), minlength=256).double() / images.numel()
    return -(share * share.clamp(min=1e-30).log()).sum().item() / math.log(2)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["hvae", "vdvae"])
def test_a_batch_of_four_does_not_stay_on_a_plateau(tiny, preset):
    """openai/vdvae #8: small batches stayed at the histogram, and collapsed."""
    overrides = ("train.images=4000", "train.checkpoint_every=4000", "model.width=16")
    config = tiny("data.size=16", "model.patch=2", f"model.preset={preset}", *overrides)
    result = fit(config)
    baseline = histogram_bits(open_source(config.data, "test"))
    assert result.bits_per_dim < baseline - 1
