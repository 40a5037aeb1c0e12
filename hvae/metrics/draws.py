"""Seeded choices among images, the same on every device and whatever else draws numbers."""

import torch
from torch import Tensor

from hvae.ops.philox import make_rng, philox_words


def permutation(seed: int, count: int, *, stream: int = 0, index: int = 0) -> Tensor:
    """Returns a random order of 0 .. count - 1, int64 (count,), on the CPU.

    Sorts 63-bit keys from Philox; two are equal with a probability of count^2 / 2^64.

    Args:
        seed: of the draw, as `hvae.ops.philox.derive_seed` gives it.
        count: how many there are.
        stream: which of the orders that one purpose needs.
        index: which of many repetitions.
    """
    w0, w1, w2, w3 = philox_words(make_rng(seed, index), stream, (count + 1) // 2, 1)
    keys = torch.stack([w0 >> 1 << 32 | w1, w2 >> 1 << 32 | w3], dim=-1).flatten()
    return keys[:count].argsort(stable=True)


def with_replacement(seed: int, count: int, *, index: int = 0) -> Tensor:
    """Returns `count` draws from 0 .. count - 1, int64 (count,), on the CPU.

    A 32-bit word w gives w count / 2^32, rounded down: even up to count / 2^32. Arguments as
    `permutation`.
    """
    words = torch.stack(philox_words(make_rng(seed, index), 0, (count + 3) // 4, 1), dim=-1)
    return words.flatten()[:count] * count >> 32
