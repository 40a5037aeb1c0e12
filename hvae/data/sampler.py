"""The order of images: a keyed permutation per epoch, computed and never stored.

Position p of the overall order belongs to epoch p // n and is image pi(p % n) of it, where pi is a
Feistel network (Luby and Rackoff 1988) keyed by (seed, epoch) on the smallest power of two that
holds n, walked along its cycle until the result is below n (Black and Rogaway 2002). The state of a
loader is therefore one integer, and a resumed run sees exactly the images it would have seen.
"""

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

UInts = NDArray[np.uint64]

ROUNDS = 8  # four suffice for large halves; small sets have halves of a few bits
MASK_64 = 2**64 - 1


def image_order(seed: int, positions: ArrayLike, n: int) -> NDArray[np.int64]:
    """The image at each position of the endless order of a set of `n` images.

    Args:
        seed: any integer; taken modulo 2^64.
        positions: non-negative integers, any shape; they may straddle epochs.
        n: images in the set, at least 1.

    Returns:
        int64, the shape of `positions`, each in [0, n).
    """
    positions = np.asarray(positions, dtype=np.int64)
    return permuted(seed, positions // n, positions % n, n)


def permuted(seed: int, epoch: ArrayLike, index: ArrayLike, n: int) -> NDArray[np.int64]:
    """pi(index), where pi is the permutation of [0, n) that belongs to (seed, epoch).

    Args:
        seed: any integer; taken modulo 2^64.
        epoch: non-negative integers, broadcast against `index`.
        index: integers in [0, n).
        n: size of the permutation, at least 1.

    Returns:
        int64 of the broadcast shape.

    Raises:
        ValueError: if an index is outside [0, n).
    """
    epochs, indices = np.broadcast_arrays(np.asarray(epoch, np.int64), np.asarray(index, np.int64))
    wrong = (indices < 0) | (indices >= n)
    if wrong.any():
        raise ValueError(f"wanted indices in [0, {n}), got {indices[wrong].flat[0]}")
    # At least one dimension: NumPy warns of overflow for scalars, and wrapping is meant here.
    keys = random_bits(seed, epochs.ravel(), "order")
    values = indices.ravel().astype(np.uint64)
    bits = max(n - 1, 1).bit_length()
    values = _feistel(values, keys, bits)
    while (outside := values >= n).any():
        values[outside] = _feistel(values[outside], keys[outside], bits)
    return values.astype(np.int64).reshape(indices.shape)


def block(count: int, rank: int, ranks: int) -> range:
    """Which of `count` consecutive positions are process `rank`'s of `ranks`.

    Blocks are contiguous, follow each other by rank and differ in length by one at most; with more
    processes than positions some are empty, but never the first.

    >>> [block(5, rank, 2) for rank in (0, 1)]
    [range(0, 3), range(3, 5)]
    """
    return range(-(-count * rank // ranks), -(-count * (rank + 1) // ranks))


def random_bits(seed: int, counter: NDArray[np.int64], purpose: str) -> UInts:
    """64 random bits per counter: a hash of (seed, purpose, counter).

    Args:
        seed: any integer; taken modulo 2^64.
        counter: int64 (N,).
        purpose: a word that keeps the uses of one seed independent of each other.
    """
    key = hashlib.sha256(f"{seed & MASK_64} {purpose}".encode()).digest()[:8]
    return _mix(counter.astype(np.uint64) ^ np.uint64(int.from_bytes(key, "little")))


def _feistel(values: UInts, keys: UInts, bits: int) -> UInts:
    """A permutation of [0, 2^bits) per key: eight rounds (L, R) -> (R, L xor F(R)).

    The halves differ by one bit in width if `bits` is odd; they swap widths with their places.
    """
    left_bits, right_bits = bits // 2, bits - bits // 2
    left, right = values >> np.uint64(right_bits), values & _ones(right_bits)
    for number in range(ROUNDS):
        # The round sits above the half (at most 32 bits): no two rounds hash the same input.
        scrambled = _mix(keys ^ right ^ np.uint64(number << 56)) & _ones(left_bits)
        left, right = right, left ^ scrambled
        left_bits, right_bits = right_bits, left_bits
    return (left << np.uint64(right_bits)) | right


def _ones(bits: int) -> np.uint64:
    return np.uint64((1 << bits) - 1)


def _mix(x: UInts) -> UInts:
    """SplitMix64's output function on its next state (Steele, Lea and Flood 2014): a bijection."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
