"""Convolutions of any dimension, over parts, and in float32."""

import pytest
import torch

from hvae.nn.conv import conv, conv_over_parts, in_fp32

DIMENSIONS = [1, 2, 3]


@pytest.mark.parametrize("ndim", DIMENSIONS)
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_keeps_the_size_and_starts_without_bias(ndim, kernel):
    layer = conv(ndim, 3, 5, kernel)
    x = torch.randn(2, 3, *[4] * ndim)
    assert layer(x).shape == (2, 5, *[4] * ndim)
    assert not layer.bias.any()
    assert layer.weight.shape == (5, 3, *[kernel] * ndim)


@pytest.mark.parametrize("ndim", DIMENSIONS)
@pytest.mark.parametrize("channels", [(5,), (2, 3), (1, 4, 2)])
def test_parts_stand_for_their_concatenation(ndim, channels):
    layer = conv(ndim, sum(channels), 4).double()
    torch.nn.init.normal_(layer.bias)
    parts = [torch.randn(2, n, *[3] * ndim, dtype=torch.float64) for n in channels]
    torch.testing.assert_close(conv_over_parts(layer, parts), layer(torch.cat(parts, 1)))


def test_in_fp32_leaves_autocast_and_comes_back():
    layer, x = conv(2, 4, 4), torch.randn(1, 4, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        exact = in_fp32(layer, x)
        assert exact.dtype == torch.float32
        assert in_fp32(layer, x.bfloat16()).dtype == torch.float32
        assert layer(x).dtype == torch.bfloat16
    assert torch.equal(exact, layer(x))


def test_in_fp32_leaves_double_precision_alone():
    layer, x = conv(1, 2, 2).double(), torch.randn(1, 2, 3, dtype=torch.float64)
    assert torch.equal(in_fp32(layer, x), layer(x))
