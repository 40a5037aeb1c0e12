"""Resampling and channel changes in one, two and three dimensions."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from hvae.nn.resample import (
    average_pool,
    fit_channels,
    gaussian_blur,
    patchify,
    unpatchify,
    upsample,
)

SPACES = [(6,), (6, 12), (6, 12, 18)]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("side", [1, 2, 3])
def test_unpatchify_inverts_patchify(space, side):
    x = torch.randn(2, 3, *space)
    patches = patchify(x, side)
    assert patches.shape == (2, 3 * side ** len(space), *(n // side for n in space))
    assert torch.equal(unpatchify(patches, side), x)


@pytest.mark.parametrize("space", SPACES)
def test_channels_of_a_patch_are_ordered_as_by_pixel_unshuffle(space):
    side, x = 3, torch.randn(2, 2, *space)
    patches = patchify(x, side)
    places = itertools.product(range(2), *[range(side)] * len(space))
    for channel, (colour, *offset) in enumerate(places):
        strided = x[(slice(None), colour, *(slice(o, None, side) for o in offset))]
        assert torch.equal(patches[:, channel], strided)


def test_patches_of_images_are_those_of_pixel_unshuffle():
    x = torch.randn(2, 3, 4, 6)
    assert torch.equal(patchify(x, 2), F.pixel_unshuffle(x, 2))
    # A video of one frame repeated twice has each image's patches twice, frame offsets slowest.
    video = x.unsqueeze(2).expand(-1, -1, 2, -1, -1)
    frames = patchify(video, 2).unflatten(1, (3, 2, 4)).squeeze(4)
    assert torch.equal(frames[:, :, 0].flatten(1, 2), F.pixel_unshuffle(x, 2))
    assert torch.equal(frames[:, :, 0], frames[:, :, 1])


@pytest.mark.parametrize("space", SPACES)
def test_pooling_averages_what_upsampling_repeats(space):
    x = torch.randn(2, 3, *space)
    fine = upsample(x, tuple(3 * n for n in space))
    assert fine.shape == (2, 3, *(3 * n for n in space))
    assert torch.equal(fine[(..., *[slice(None, None, 3)] * len(space))], x)
    assert torch.equal(fine[(..., *[slice(2, None, 3)] * len(space))], x)
    torch.testing.assert_close(average_pool(fine, 3), x)
    assert average_pool(x, 1) is x


@pytest.mark.parametrize("space", SPACES)
def test_a_single_element_is_repeated_over_any_shape(space):
    x = torch.randn(2, 3, *[1] * len(space))
    assert torch.equal(upsample(x, space), x.expand(2, 3, *space))


def test_pooling_is_a_mean_over_blocks():
    x = torch.arange(8.0).view(1, 1, 2, 4)
    assert average_pool(x, 2).tolist() == [[[[2.5, 4.5]]]]


@pytest.mark.parametrize("space", SPACES)
def test_channels_are_truncated_or_filled_up_with_zeros(space):
    x = torch.randn(2, 4, *space)
    assert torch.equal(fit_channels(x, 4), x)
    assert torch.equal(fit_channels(x, 3), x[:, :3])
    wide = fit_channels(x, 7)
    assert wide.shape == (2, 7, *space)
    assert torch.equal(wide[:, :4], x)
    assert not wide[:, 4:].any()


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("deviation", [0.5, 2.0, 4.0])  # the last reaches beyond the border
def test_blur_is_that_of_scipy(space, deviation):
    x = torch.randn(2, 3, *space, dtype=torch.float64)
    wanted = [
        gaussian_filter(maps.numpy(), deviation, mode="nearest", radius=-(-int(6 * deviation) // 2))
        for maps in x.flatten(0, 1)
    ]
    found = gaussian_blur(x, deviation).flatten(0, 1)
    torch.testing.assert_close(found, torch.stack([torch.as_tensor(w) for w in wanted]))


def test_no_blur_is_the_same_tensor():
    x = torch.randn(2, 3, 6)
    assert gaussian_blur(x, 0) is x


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_blur_is_differentiable_twice(ndim):
    x = torch.randn(2, 2, *[4] * ndim, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: gaussian_blur(x, 1.0).square(), x)
