"""Noise: the published vectors, what it may depend on, and its distribution."""

import itertools
import math

import pytest
import torch

from hvae import ops
from hvae.ops.philox import (
    DEQUANTISATION_STREAM,
    DROP_STREAM,
    MASK_STREAM,
    OUTPUT_STREAM,
    _box_muller,
    make_rng,
    philox4x32,
    philox_uniform,
)

ONES = 0xFFFFFFFF

# Counter, key and output of the vectors published with Philox (Random123, kat_vectors).
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_gives_the_published_words(counter, key, words):
    output = philox4x32(
        tuple(torch.tensor(word) for word in counter), tuple(torch.tensor(word) for word in key)
    )
    assert tuple(int(word) for word in output) == words


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_the_header_of_the_kernels_gives_the_published_words(counter, key, words):
    host = pytest.importorskip("hvae._host")
    assert host.philox4x32(*counter, *key) == words


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 7, 2**63 - 1])
def test_the_kernels_draw_the_normals_of_the_tensor_operations(seed):
    host = pytest.importorskip("hvae._host")
    sample, stream, num_blocks = 2**33 + 5, 2**32 - 1, 9
    rng = ops.make_rng(seed, sample)
    blocks = ops.philox_normal(rng, stream, (1, 4 * num_blocks), torch.float64).view(-1, 4)
    for block, expected in enumerate(blocks.tolist()):
        # The angle in float32 costs 2e-7 of the radius.
        assert host.philox_normal(seed, stream, sample, block) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("shape", [(8, 3, 5), (8, 1, 1), (8, 2, 7, 3), (8, 1, 3, 2, 2)])
def test_noise_of_a_sample_is_independent_of_its_batch(shape):
    whole = ops.philox_normal(ops.make_rng(3, 40), 1, shape)
    halves = [ops.philox_normal(ops.make_rng(3, 40 + i), 1, (4, *shape[1:])) for i in (0, 4)]
    assert torch.equal(whole, torch.cat(halves))


def test_noise_follows_the_element_not_the_shape():
    rng = ops.make_rng(3)
    flat = ops.philox_normal(rng, 0, (2, 1, 30))
    assert torch.equal(ops.philox_normal(rng, 0, (2, 5, 3, 2)), flat.view(2, 5, 3, 2))
    assert torch.equal(ops.philox_normal(rng, 0, (2, 1, 11)), flat[:, :, :11])


def test_seed_stream_and_sample_each_change_the_noise():
    drawn = [
        ops.philox_normal(ops.make_rng(seed, sample), stream, (1, 2, 5))
        for seed in (0, 1, 2**32)
        for sample in (0, 1, 2**32)
        for stream in (0, 1, 2**31)
    ]
    assert len({tuple(noise.flatten().tolist()) for noise in drawn}) == 27


def test_normals_have_the_moments_of_the_normal_distribution():
    count = 2**20
    noise = ops.philox_normal(ops.make_rng(1), 0, (16, 1, count // 16), torch.float64).flatten()
    # Six standard errors of each moment: sqrt(1), sqrt(2), sqrt(15), sqrt(96) by sqrt(count).
    for power, (moment, error) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        assert noise.pow(power).mean().item() == pytest.approx(
            moment, abs=6 * math.sqrt(error / count)
        )
    lanes = noise.view(-1, 4)
    correlation = (lanes.T @ lanes) / len(lanes)
    assert (correlation - torch.eye(4)).abs().max() < 6 * math.sqrt(2 / len(lanes))


def test_normals_are_finite_at_the_extreme_words():
    words = torch.tensor([0, 1, ONES - 1, ONES])
    for dtype in (torch.float32, torch.float64):
        pairs = torch.stack(_box_muller(words[:, None], words[None, :], dtype))
        assert pairs.isfinite().all()
        assert 5.76 < pairs.abs().max() <= 5.77


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniforms_stay_inside_the_unit_interval(dtype):
    uniform = ops.philox_uniform(ops.make_rng(2), 4, num_blocks=2**12, batch=16, dtype=dtype)
    assert uniform.shape == (16, 2**12, 4)
    assert uniform.dtype == dtype
    assert uniform.min() > 0
    assert uniform.max() < 1
    assert uniform.mean().item() == pytest.approx(0.5, abs=6 * math.sqrt(1 / 12 / 2**18))
    assert uniform.var().item() == pytest.approx(1 / 12, abs=6 * math.sqrt(1 / 180 / 2**18))


def test_uniforms_are_the_words_of_the_normals():
    rng = ops.make_rng(9, 2)
    u0, angle, *_ = ops.philox_uniform(rng, 1, 1, 1, torch.float64).flatten()
    first, second, *_ = ops.philox_normal(rng, 1, (1, 4), torch.float64).flatten()
    assert torch.isclose(first**2 + second**2, -2 * u0.log())
    turn = torch.atan2(second, first) / (2 * math.pi) % 1
    assert torch.isclose(turn, angle, atol=2.0**-23)


@pytest.mark.slow
def test_noise_is_the_same_under_compile():
    # Inductor once folded arange * multiplier into an arange with a step that overflowed.
    call = torch.compile(ops.philox_normal, fullgraph=True)
    rng = ops.make_rng(2**40 + 1, 7)
    expected = ops.philox_normal(rng, 3, (3, 2, 45))
    torch.testing.assert_close(call(rng, 3, (3, 2, 45)), expected, rtol=1e-6, atol=1e-6)


def test_derived_seeds_are_fixed_and_differ_by_seed_and_purpose():
    # sha256("1:train"): the value may never change, or runs are not repeatable across versions.
    assert ops.derive_seed(1, "train") == 3978408764747302550
    seeds = {ops.derive_seed(s, purpose) for s in range(50) for purpose in ("train", "eval")}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match=r"seed must be in \[0, 2\*\*63\), got -1"):
        ops.make_rng(-1)
    with pytest.raises(ValueError, match="first_sample must be in"):
        ops.make_rng(0, 2**63)
    with pytest.raises(TypeError, match=r"rng must be int64 .*, got torch.float32"):
        ops.philox_normal(torch.zeros(2), 0, (1, 1, 1))
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        ops.philox_normal(torch.zeros(3, dtype=torch.int64), 0, (1, 1, 1))
    with pytest.raises(ValueError, match="stream must be in"):
        ops.philox_normal(ops.make_rng(0), 2**32, (1, 1, 1))


def test_purposes_that_share_a_seed_draw_from_streams_of_their_own():
    streams = (OUTPUT_STREAM, DEQUANTISATION_STREAM, DROP_STREAM, MASK_STREAM)
    drawn = [philox_uniform(make_rng(3), stream, 4, 2) for stream in streams]
    for first, second in itertools.combinations(drawn, 2):
        assert not torch.equal(first, second)
