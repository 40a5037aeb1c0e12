import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hvae.data.resize import centre_box, fit, rounded

SIDES = st.integers(1, 5000)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_the_right_shape_passes_unchanged():
    image = noise(3, 5, 7)
    assert fit(image, (3, 5, 7)) is image


def test_halves_round_up_and_overshoot_is_clipped():
    values = np.array([-3.0, 0.49, 0.5, 1.5, 254.5, 300.0])
    assert rounded(values).tolist() == [0, 0, 1, 2, 255, 255]


def test_grey_becomes_three_equal_channels_and_back():
    grey = noise(1, 6, 6)
    colour = fit(grey, (3, 6, 6))
    assert (colour == grey).all()
    np.testing.assert_array_equal(fit(colour, (1, 6, 6)), grey)


def test_luma_weights_are_those_of_pillow():
    colour = noise(3, 20, 20)
    wanted = np.asarray(Image.fromarray(colour.transpose(1, 2, 0)).convert("L")).astype(int)
    assert np.abs(fit(colour, (1, 20, 20))[0] - wanted).max() <= 1


def test_resizing_is_close_to_pillow_in_eight_bits():
    image = noise(1, 40, 40)
    wanted = Image.fromarray(image[0]).resize((13, 13), Image.Resampling.LANCZOS)
    assert np.abs(fit(image, (1, 13, 13))[0].astype(int) - np.asarray(wanted)).max() <= 1


def test_shrinking_a_fine_checkerboard_is_antialiased():
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[None]
    small = fit(board, (1, 8, 8))
    assert np.abs(small.astype(int) - 128).max() <= 2


@pytest.mark.parametrize("wide", [True, False])
def test_the_middle_is_cut_out(wide):
    image = np.zeros((1, 4, 12), dtype=np.uint8)
    image[:, :, 4:8] = 255
    image = image if wide else image.transpose(0, 2, 1)
    assert (fit(image, (1, 4, 4)) == 255).all()


@pytest.mark.parametrize("value", [0, 1, 77, 254, 255])
def test_constant_images_stay_constant(value):
    image = np.full((3, 31, 17), value, dtype=np.uint8)
    assert (fit(image, (3, 9, 64)) == value).all()


@given(SIDES, SIDES, SIDES, SIDES)
def test_the_box_lies_inside_and_has_the_target_aspect(height, width, to_height, to_width):
    left, top, right, bottom = centre_box((height, width), (to_height, to_width))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert (right - left) * to_height == pytest.approx((bottom - top) * to_width, rel=1e-9)
    assert left + right == pytest.approx(width)
    assert max((right - left) / width, (bottom - top) / height) == pytest.approx(1)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_any_size_reaches_any_size(height, width, to_height, to_width):
    image = np.full((1, height, width), 9, dtype=np.uint8)
    assert (fit(image, (1, to_height, to_width)) == 9).all()
