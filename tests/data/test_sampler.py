import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvae.data.sampler import image_order, permuted, random_bits

SEEDS = st.integers(-(2**63), 2**64)
EPOCHS = st.integers(0, 2**40)


@given(SEEDS, EPOCHS, st.integers(1, 3000))
def test_every_epoch_is_a_permutation(seed, epoch, n):
    order = permuted(seed, epoch, np.arange(n), n)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


@pytest.mark.parametrize("n", [2**k + d for k in (1, 2, 3, 9, 16) for d in (-1, 0, 1)])
def test_sizes_around_powers_of_two_are_permutations(n):
    np.testing.assert_array_equal(np.sort(permuted(7, 3, np.arange(n), n)), np.arange(n))


def test_huge_sets_need_no_memory():
    n = 2**40 + 1
    order = permuted(7, 3, np.array([0, 1, n - 1]), n)
    assert len(set(order.tolist())) == 3
    assert ((order >= 0) & (order < n)).all()


@given(SEEDS, st.integers(1, 50), st.integers(0, 500), st.integers(1, 120))
def test_a_position_alone_decides(seed, n, start, count):
    """Whether asked one by one, at once, or across epochs."""
    at_once = image_order(seed, np.arange(start, start + count), n)
    one_by_one = [int(permuted(seed, p // n, p % n, n)) for p in range(start, start + count)]
    assert at_once.tolist() == one_by_one


def test_epochs_and_seeds_give_unrelated_orders():
    orders = [permuted(seed, epoch, np.arange(1000), 1000) for seed in (0, 1) for epoch in (0, 1)]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            # Two random permutations agree in one place on average, rarely in more than five.
            assert (one == other).sum() <= 6
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.15


@pytest.mark.parametrize("n", [2, 3, 5, 10, 17])
def test_every_image_is_equally_likely_at_every_place(n):
    """Chi-squared over 4,000 epochs, n (n - 1) degrees of freedom at most; 6 sigma allowed."""
    epochs = 4000
    places = permuted(3, np.arange(epochs)[:, None], np.arange(n)[None], n)
    expected = epochs / n
    for place in range(n):
        counts = np.bincount(places[:, place], minlength=n)
        chi2 = ((counts - expected) ** 2 / expected).sum()
        assert chi2 < (n - 1) + 6 * np.sqrt(2 * (n - 1))


def test_all_orders_of_three_occur_alike():
    places = permuted(5, np.arange(6000)[:, None], np.arange(3)[None], 3)
    _, counts = np.unique(places, axis=0, return_counts=True)
    assert len(counts) == 6
    assert ((counts - 1000) ** 2 / 1000).sum() < 25


def test_neighbours_are_scattered():
    """Correlation of successive images vanishes, as for a random permutation."""
    order = permuted(11, 0, np.arange(60_000), 60_000)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02


def test_the_order_is_fixed_for_ever():
    """A change here breaks the resuming of every run there is."""
    order = [8889, 4912, 3816, 2242, 6187, 9034, 5980, 6972]
    assert image_order(0, np.arange(8), 10_000).tolist() == order
    assert image_order(-1, 10**12, 7) == 2


@pytest.mark.parametrize("index", [-1, 10])
def test_an_index_outside_is_refused(index):
    with pytest.raises(ValueError, match=rf"indices in \[0, 10\), got {index}"):
        permuted(0, 0, index, 10)


def test_wrapping_arithmetic_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert permuted(2**64 - 1, 0, 0, 1) == 0


def test_purposes_of_one_seed_are_independent():
    counter = np.arange(10_000)
    one, other = random_bits(1, counter, "order"), random_bits(1, counter, "flip")
    assert ((one ^ other) & np.uint64(1)).mean() == pytest.approx(0.5, abs=0.03)
    assert len(np.unique(one)) == 10_000
