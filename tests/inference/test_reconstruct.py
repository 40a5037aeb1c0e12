"""Reconstructions keep as much of an image as they are given groups."""

import pytest
import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.inference import reconstruct
from hvae.models import HVAE, ModelConfig


@pytest.fixture(scope="module")
def model() -> HVAE:
    torch.manual_seed(0)
    config = ModelConfig(
        size=(8, 8), channels=1, encoder="8x1,8d8,1x1", decoder="1x1,8m1,8x1", width=8,
        z_channels=2,
    )  # fmt: skip
    return HVAE(config).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("groups", [None, 0, 1])
@pytest.mark.parametrize("mode", ["sample", "mean"])
def test_reconstructions_are_images(
    model: HVAE, images: Tensor, groups: int | None, mode: str
) -> None:
    result = reconstruct(model, images, groups=groups, mode=mode)
    assert result.dtype == torch.uint8
    assert result.shape == images.shape


def test_all_groups_is_the_default_and_equals_decoding_the_code(
    model: HVAE, images: Tensor
) -> None:
    result = reconstruct(model, images, seed=3)
    assert torch.equal(result, reconstruct(model, images, groups=model.num_groups, seed=3))
    assert torch.equal(result, model.decode(model.encode(images, seed=3)).mean_image())


def test_without_groups_nothing_of_the_image_is_left(model: HVAE, images: Tensor) -> None:
    result = reconstruct(model, images, groups=0)
    assert torch.equal(result, reconstruct(model, 255 - images, groups=0, seed=5))
    assert torch.equal(result[0], result[1])


def test_the_mean_does_not_depend_on_the_seed(model: HVAE, images: Tensor) -> None:
    first = reconstruct(model, images, mode="mean", seed=1)
    assert torch.equal(first, reconstruct(model, images, mode="mean", seed=2))


@pytest.mark.parametrize("groups", [-1, 99])
def test_groups_out_of_range_are_refused(model: HVAE, images: Tensor, groups: int) -> None:
    with pytest.raises(UserError, match=f"groups: wanted 0 to {model.num_groups}, got {groups}"):
        reconstruct(model, images, groups=groups)


def test_an_unknown_mode_is_refused(model: HVAE, images: Tensor) -> None:
    with pytest.raises(UserError, match="mode"):
        reconstruct(model, images, mode="median")
