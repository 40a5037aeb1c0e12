"""Schedules, in images."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvae.losses.schedule import cosine_decay, cyclical_ramp, linear_ramp


@pytest.mark.parametrize(
    ("images", "length", "value"), [(0, 8, 0), (2, 8, 0.25), (8, 8, 1), (9, 8, 1), (0, 0, 1)]
)
def test_a_ramp_rises_to_one_and_stays(images, length, value):
    assert linear_ramp(images, length) == value


@pytest.mark.parametrize(
    ("images", "value"), [(0, 1.0), (50, 0.55), (100, 0.1), (200, 0.1), (25, 0.55 + 0.45 / 2**0.5)]
)
def test_a_cosine_falls_to_its_final_value_and_stays(images, value):
    assert cosine_decay(images, 100, 0.1) == pytest.approx(value)


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 10**9), st.floats(0.0, 1.0))
def test_schedules_are_monotone_and_bounded(first, second, length, final):
    early, late = sorted((first, second))
    assert 0 <= linear_ramp(early, length) <= linear_ramp(late, length) <= 1
    start, end = cosine_decay(early, length, final), cosine_decay(late, length, final)
    assert final <= end <= start <= 1
    assert not math.isnan(start)


@pytest.mark.parametrize(
    ("images", "value"),
    [(0, 0), (1, 0.04), (12, 0.48), (25, 1), (50, 1), (51, 0.04), (100, 1), (200, 1), (201, 1)],
)
def test_a_cyclical_ramp_rises_in_every_part_and_ends_at_one(images, value):
    """Fu et al., arXiv 1903.10145, equation 6, with M = 4 and R = 0.5."""
    assert cyclical_ramp(images, 200, 4, 0.5) == pytest.approx(value)


@given(st.integers(1, 10**6), st.integers(1, 20), st.floats(0.01, 1.0), st.integers(0, 2 * 10**6))
def test_a_cyclical_ramp_is_bounded_and_ends_each_part_at_one(period, cycles, rise, images):
    length = period * cycles
    assert 0 <= cyclical_ramp(images, length, cycles, rise) <= 1
    for part in range(1, cycles + 1):
        assert cyclical_ramp(part * period, length, cycles, rise) == 1


def test_one_cycle_is_a_linear_ramp():
    found = [cyclical_ramp(images, 100, 1, 0.5) for images in range(101)]
    assert found == [linear_ramp(images, 50) for images in range(101)]
