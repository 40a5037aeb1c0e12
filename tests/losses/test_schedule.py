"""Schedules, in images."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvae.losses.schedule import cosine_decay, linear_ramp


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
