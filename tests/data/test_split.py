import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvae.data.split import hashed_rows
from hvae.errors import UserError


@given(st.lists(st.text(max_size=8), min_size=2, max_size=40, unique=True))
def test_splits_are_disjoint_complete_and_never_empty(names):
    train, test = hashed_rows(names, "train", "x"), hashed_rows(names, "test", "x")
    assert len(train)
    assert len(test)
    assert sorted([*train, *test]) == list(range(len(names)))


def test_one_in_twenty_is_test():
    share = len(hashed_rows([*map(str, range(20_000))], "test", "x")) / 20_000
    assert share == pytest.approx(0.05, abs=0.005)


def test_an_image_keeps_its_side_when_others_come():
    few, many = [*map(str, range(1000))], [*map(str, range(3000))]
    before = hashed_rows(few, "test", "x").tolist()
    after = hashed_rows(many, "test", "x")
    assert before == after[after < 1000].tolist()


def test_the_rule_is_fixed_for_ever():
    """Another result would move images between the splits of existing runs."""
    assert hashed_rows([*map(str, range(100))], "test", "x").tolist() == [39, 51, 55]


def test_a_single_image_is_train():
    assert hashed_rows(["a"], "train", "x").tolist() == [0]
    with pytest.raises(UserError, match="x has a single image"):
        hashed_rows(["a"], "test", "x")
