"""Splits for sets that come without one."""

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hvae.errors import UserError

Split = Literal["train", "test"]

TEST_SHARE = 20  # one image in 20


def hashed_rows(names: Sequence[str], split: Split, what: str) -> NDArray[np.int64]:
    """The positions in `names` that belong to a split, by the hash of each name.

    An image is in the test set when the first eight bytes of the sha256 of its name fall in the
    lowest 5 %. A name decides for itself, so images keep their side when others are added. Small
    sets would often have no test image: where there are two or more, the lowest hash is always
    test and the highest always train.

    Args:
        names: one per image, unique.
        split: "train" or "test".
        what: the set, for the error message.

    Raises:
        UserError: if the split is empty, which takes a set of a single image.
    """
    keys = np.array([_key(name) for name in names], dtype=np.uint64)
    is_test = keys < np.uint64(2**64 // TEST_SHARE)
    is_test[keys.argmin()] = True
    is_test[keys.argmax()] = False
    rows = np.flatnonzero(is_test == (split == "test"))
    if len(rows) == 0:
        raise UserError(f"{what} has a single image, which is in train; a test split takes another")
    return rows


def _key(name: str) -> int:
    return int.from_bytes(
        hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big"
    )
