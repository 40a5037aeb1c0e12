"""Noise as a pure function of (seed, sample, stream, element): Philox4x32-10 in tensor operations.

A generator state would tie the noise of an image to the batch it sits in. Here the counter *names*
the number that is wanted, so sample i draws the same noise for every batch size, rank count and
device kind, and a backward pass draws it again instead of storing it:

    key      words 0-1  seed (low, high)
    counter  word  0    block within the sample; element e = c * N_s + s in NCHW order is lane e % 4
                        of block e // 4
             word  1    stream: the latent group, or any other purpose
             words 2-3  global sample index (low, high)

The state travels as an int64 tensor `rng = (seed, first_sample)` on the device that draws; row b of
a batch is sample `first_sample + b`. Nothing here reads its values on the host, which would stall a
GPU and break `torch.compile`.

Philox: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

Words = tuple[Tensor, Tensor, Tensor, Tensor]

# Streams beyond every latent group's, which count from 0. Side by side: two purposes that draw
# under one seed and one stream would meet the same noise.
OUTPUT_STREAM, DEQUANTISATION_STREAM, DROP_STREAM, MASK_STREAM = (2**31 - n for n in range(1, 5))

_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_MASK32 = 0xFFFFFFFF


def make_rng(seed: int, first_sample: int = 0, device: torch.device | str | None = None) -> Tensor:
    """Return the noise state `(seed, first_sample)` as an int64 tensor of shape (2,).

    Raises:
        ValueError: a value is not in [0, 2**63).
    """
    for name, value in (("seed", seed), ("first_sample", first_sample)):
        if not 0 <= value < 2**63:
            raise ValueError(f"{name} must be in [0, 2**63), got {value}")
    return torch.tensor([seed, first_sample], dtype=torch.int64, device=device)


def derive_seed(seed: int, purpose: str) -> int:
    """Return a 63-bit seed for one purpose, unrelated to the seeds of all other purposes.

    Training, evaluation and sampling draw under seeds of their own, so that no two of them ever
    meet the same noise. The seed is the top 63 bits of sha256("<seed>:<purpose>").
    """
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def philox4x32(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Return the four output words of Philox4x32-10, int64 tensors with values in [0, 2**32).

    Args:
        counter: four int64 tensors that broadcast against each other, values in [0, 2**32).
        key: two int64 tensors that broadcast against the counter, values in [0, 2**32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = (k0 + _KEY_STEPS[0]) & _MASK32
        k1 = (k1 + _KEY_STEPS[1]) & _MASK32
    return c0, c1, c2, c3


def philox_words(rng: Tensor, stream: int, num_blocks: int, batch: int) -> Words:
    """Return the words of the first `num_blocks` blocks of each sample, int64 (batch, num_blocks).

    Args:
        rng: int64 (2,), see `make_rng`.
        stream: which noise of a sample, in [0, 2**32).
        num_blocks: blocks per sample; each gives four words.
        batch: samples, from `first_sample` on.

    Raises:
        TypeError, ValueError: `rng` or `stream` is not as above.
    """
    check_noise(rng, stream)
    seed, first_sample = rng[0], rng[1]
    # The mask changes no value, but ends an index expression: inductor (torch 2.13) would fold the
    # product with a multiplier into an arange and overflow its step, a 32-bit literal.
    block = torch.arange(num_blocks, device=rng.device).unsqueeze(0) & _MASK32
    sample = first_sample + torch.arange(batch, device=rng.device).unsqueeze(1)
    counter = (block, torch.full_like(block, stream), *_split(sample))
    return philox4x32(counter, _split(seed))


def philox_uniform(
    rng: Tensor, stream: int, num_blocks: int, batch: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return uniforms in (0, 1), shape (batch, num_blocks, 4): block k of a sample, lane l.

    Every value u, and 1 - u, is exact in float32 and neither is ever 0, so that logarithms of
    both are finite: u(w) = (w >> 9) * 2**-23 + 2**-24. Arguments and errors as `philox_words`.
    """
    words = philox_words(rng, stream, num_blocks, batch)
    return torch.stack([_uniform(word, dtype) for word in words], dim=-1)


def philox_normal(
    rng: Tensor, stream: int, shape: Sequence[int], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return standard normals of shape (B, C, *S), contiguous; |n| <= 5.77.

    Box-Muller on words w0..w3 of a block: n0, n1 = sqrt(-2 ln u(w0)) (cos, sin)(2 pi w1 / 2**32),
    and n2, n3 likewise from w2, w3. Computed in float64 for a float64 result, else in float32.

    Args:
        rng: int64 (2,), see `make_rng`.
        stream: which noise of a sample, in [0, 2**32).
        shape: (B, C, *S); element e of a sample, in NCHW order, is lane e % 4 of block e // 4.
        dtype: of the result.

    Raises:
        TypeError, ValueError: `rng` or `stream` is not as above.
    """
    batch, per_sample = shape[0], math.prod(shape[1:])
    w0, w1, w2, w3 = philox_words(rng, stream, (per_sample + 3) // 4, batch)
    arithmetic = torch.float64 if dtype == torch.float64 else torch.float32
    lanes = [*_box_muller(w0, w1, arithmetic), *_box_muller(w2, w3, arithmetic)]
    blocks = torch.stack(lanes, dim=-1).flatten(1)
    return blocks[:, :per_sample].reshape(shape).to(dtype)


def check_noise(rng: Tensor, stream: int) -> None:
    """Raise TypeError or ValueError unless `rng` is int64 (2,) and `stream` a 32-bit word."""
    if rng.dtype != torch.int64:
        raise TypeError(f"rng must be int64 (see hvae.ops.make_rng), got {rng.dtype}")
    if rng.shape != (2,):
        raise ValueError(f"rng must be (seed, first_sample), shape (2,), got {tuple(rng.shape)}")
    if not 0 <= stream <= _MASK32:
        raise ValueError(f"stream must be in [0, 2**32), got {stream}")


def _multiply(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """High and low word of a 32 x 32 bit product."""
    # word * multiplier may pass 2**63, but both multipliers are above 2**31: less 2**32 they are
    # negative and smaller, which leaves the low word as it is and takes `word` from the high one.
    product = word * (multiplier - 2**32)
    return (product >> 32) + word, product & _MASK32


def _split(value: Tensor) -> tuple[Tensor, Tensor]:
    return value & _MASK32, value >> 32 & _MASK32


def _uniform(word: Tensor, dtype: torch.dtype) -> Tensor:
    # 23 bits, not 24: (w >> 8) * 2**-24 + 2**-25 rounds to 1.0 in float32 for the top word.
    return (word >> 9).to(dtype) * 2.0**-23 + 2.0**-24


def _box_muller(
    radius_word: Tensor, angle_word: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    radius = torch.sqrt(-2.0 * torch.log(_uniform(radius_word, dtype)))
    # As a signed word the angle lies in [-pi, pi), where float32 rounds it half as coarsely.
    signed = angle_word - (angle_word >> 31 << 32)
    angle = signed.to(dtype) * (2.0 * math.pi / 2**32)
    return radius * torch.cos(angle), radius * torch.sin(angle)
