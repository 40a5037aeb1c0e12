"""The bottleneck block."""

import pytest
import torch
import torch.nn.functional as F

from hvae.nn.block import Bottleneck

ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_bottleneck_is_four_convolutions_each_after_the_activation(ndim, activation):
    block = Bottleneck(ndim, (6, 3, 5), activation=activation)
    x, act = torch.randn(2, 6, *[4] * ndim), ACTIVATIONS[activation]
    expected = block.c4(act(block.c3(act(block.c2(act(block.c1(act(x))))))))
    assert torch.equal(block(x), expected)
    assert expected.shape == (2, 5, *[4] * ndim)


def test_gelu_is_the_exact_one():
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)
    exact = x * (1 + torch.erf(x / 2**0.5)) / 2
    torch.testing.assert_close(Bottleneck(2, (1, 1, 1), activation="gelu").activation(x), exact)


@pytest.mark.parametrize("kernel", [1, 3])
def test_only_the_inner_convolutions_have_the_kernel(kernel):
    block = Bottleneck(2, (4, 2, 4), kernel=kernel)
    sides = [layer.weight.shape[-1] for layer in (block.c1, block.c2, block.c3, block.c4)]
    assert sides == [1, kernel, kernel, 1]


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("channels", [(6,), (2, 4), (1, 2, 3)])
def test_activated_parts_stand_for_their_concatenation(ndim, channels):
    block = Bottleneck(ndim, (6, 3, 5)).double()
    parts = [torch.randn(2, n, *[4] * ndim, dtype=torch.float64) for n in channels]
    whole = block(torch.cat(parts, 1))
    torch.testing.assert_close(block.from_activated(*map(block.activation, parts)), whole)


def test_only_an_fp32_tail_is_exact_under_autocast():
    x = torch.randn(2, 6, 4, 4)
    for tail in (False, True):
        block = Bottleneck(2, (6, 3, 5), fp32_tail=tail)
        with torch.autocast("cpu", torch.bfloat16):
            assert block(x).dtype == (torch.float32 if tail else torch.bfloat16)
