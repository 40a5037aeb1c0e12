"""The gradient guard: it clips, it skips, and it never stops training for good."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvae.training.config import GuardConfig
from hvae.training.guard import Guard, Verdict
from hvae.training.recovery import Diverged

WARM = 64


def warm_guard(norm: float = 1.0, **settings: object) -> Guard:
    """A guard that has seen enough equal norms to skip."""
    guard = Guard(GuardConfig(**settings))
    for _ in range(WARM):
        guard.judge(norm)
    return guard


def test_the_first_step_is_taken_as_it_is():
    assert Guard(GuardConfig()).judge(123.0) == Verdict(1.0, math.inf)


def test_gradients_are_clipped_to_the_threshold():
    verdict = warm_guard(2.0).judge(5.0)
    assert verdict.threshold == 2.0
    assert verdict.scale * 5.0 == pytest.approx(2.0)
    assert warm_guard(2.0).judge(1.0).scale == 1.0


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.95])
def test_the_threshold_is_the_quantile_of_the_window(quantile):
    guard = Guard(GuardConfig(quantile=quantile, window=100))
    norms = np.random.default_rng(0).permutation(np.linspace(1, 2, 300))
    for norm in norms:
        guard.judge(float(norm))
    expected = np.quantile(norms[-100:], quantile, method="inverted_cdf")
    assert guard.judge(1.0).threshold == pytest.approx(expected)


def test_nothing_finite_is_skipped_before_enough_norms_are_known():
    guard = Guard(GuardConfig())
    for step in range(WARM):
        assert not guard.judge(10.0**step).skip


def test_a_spike_is_skipped_and_recorded_at_the_limit():
    guard = warm_guard(1.0, window=WARM)
    assert guard.judge(1e9).skip
    assert guard.skips == 1
    assert max(guard.norms) == 5.0
    assert not guard.judge(1.0).skip


def test_a_norm_that_every_batch_exceeds_is_stepped_on_within_nine_calls():
    """openai/vdvae #25: a fixed threshold below every norm skipped each batch for ever."""
    guard = warm_guard(1.0)
    verdicts = [guard.judge(1e6) for _ in range(9)]
    assert [verdict.skip for verdict in verdicts] == [True] * 8 + [False]
    assert 0 < verdicts[-1].scale < 1


def test_the_threshold_follows_norms_that_stay_large():
    guard = warm_guard(1.0)
    for _ in range(600):
        guard.judge(1e3)
    assert guard.judge(1e3) == Verdict(1.0, 1e3)


def test_a_zero_norm_does_not_pin_the_threshold_to_zero():
    guard = Guard(GuardConfig())
    guard.judge(0.0)
    assert guard.judge(1.0).scale == 1.0
    for _ in range(WARM):
        guard.judge(0.0)
    assert guard.judge(1.0).scale == 1.0


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_what_is_not_finite_is_skipped_and_not_recorded(norm):
    guard = warm_guard(1.0)
    before = list(guard.norms)
    assert guard.judge(norm).skip
    assert list(guard.norms) == before
    assert guard.judge(1.0) == Verdict(1.0, 1.0)


def test_ten_in_a_row_that_are_not_finite_are_a_divergence():
    guard = Guard(GuardConfig())
    for _ in range(9):
        guard.judge(math.nan)
    with pytest.raises(Diverged) as caught:
        guard.judge(math.inf)
    assert (
        str(caught.value) == "10 steps in a row had an objective or a gradient that is not finite"
    )


def test_an_objective_that_stays_above_noise_is_a_divergence():
    guard = Guard(GuardConfig(max_above_uniform=3))
    for bits in (9.0, 9.0, 8.0, 9.0, math.nan, 1e9):
        guard.watch(bits)
    with pytest.raises(Diverged) as caught:
        guard.watch(12345.6)
    assert str(caught.value) == (
        "3 steps in a row had an objective above 8 bits/dim, what uniform noise costs; "
        "the last one 1.235e+04"
    )


def test_the_watch_can_be_left_out():
    guard = Guard(GuardConfig(max_above_uniform=None))
    for _ in range(1000):
        guard.watch(9.0)
    assert guard.healthy


def test_steps_of_the_warm_up_do_not_count_but_are_not_healthy():
    guard = Guard(GuardConfig(max_above_uniform=2))
    for _ in range(10):
        guard.watch(9.0, warm=False)
        assert not guard.healthy
    guard.watch(7.0, warm=False)
    assert guard.healthy
    guard.judge(math.nan)
    assert not guard.healthy


def test_each_roll_back_halves_the_learning_rate():
    guard = Guard(GuardConfig())
    assert guard.lr_scale == 1.0
    guard.rollbacks = 2
    restored = Guard(GuardConfig())
    restored.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    assert restored.lr_scale == 0.25


def test_a_state_of_an_earlier_version_is_read():
    state = warm_guard().state_dict()
    del state["rollbacks"], state["above_uniform_in_row"], state["above_uniform"]
    guard = Guard(GuardConfig())
    guard.load_state_dict(state)
    assert (guard.rollbacks, guard.above_uniform_in_row) == (0, 0)


def test_a_finite_step_starts_the_count_again():
    guard = Guard(GuardConfig(max_nonfinite=2))
    for _ in range(20):
        assert guard.judge(math.nan).skip
        assert not guard.judge(1.0).skip


finite = st.just(0.0) | st.floats(1e-30, 1e30)
norms_of_runs = st.lists(finite | st.just(math.nan), max_size=200)


@given(norms=norms_of_runs, max_skips=st.integers(0, 8), start=finite)
def test_no_sequence_of_norms_stops_training(norms, max_skips, start):
    guard = Guard(GuardConfig(max_skips=max_skips, max_nonfinite=10**6))
    for _ in range(WARM):
        guard.judge(start)
    skipped = 0
    for norm in norms:
        verdict = guard.judge(norm)
        if math.isnan(norm):
            assert verdict.skip
            continue
        skipped = skipped + 1 if verdict.skip else 0
        assert skipped <= max_skips
        if not verdict.skip:
            assert 0 < verdict.scale <= 1
            assert norm * verdict.scale <= verdict.threshold * (1 + 1e-9)


@given(before=norms_of_runs, after=norms_of_runs)
def test_the_state_survives_a_file(before, after):
    config = GuardConfig(max_nonfinite=10**6)
    guard, restored = Guard(config), Guard(config)
    for norm in before:
        guard.judge(norm)
    restored.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    assert [guard.judge(norm) for norm in after] == [restored.judge(norm) for norm in after]
    assert guard.state_dict() == restored.state_dict()


def test_the_window_forgets():
    guard = warm_guard(100.0, window=WARM)
    for _ in range(WARM):
        guard.judge(1.0)
    assert guard.judge(1.0).threshold == 1.0


def test_fixed_norms_take_the_place_of_the_quantile():
    guard = Guard(GuardConfig(clip_norm=200.0, skip_norm=400.0, max_skips=2))
    assert guard.judge(100.0) == Verdict(1.0, 200.0)
    assert guard.judge(300.0).scale == pytest.approx(2 / 3)
    assert [guard.judge(401.0).skip for _ in range(3)] == [True, True, False]  # no dead-lock
    assert guard.judge(401.0).skip
