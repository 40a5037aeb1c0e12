import pytest
import torch
import torch.nn.functional as F

from hvae.nn.attention import SelfAttention


@pytest.fixture
def attention():
    layer = SelfAttention(2, 6, heads=2)
    torch.nn.init.normal_(layer.out_conv.weight)
    return layer


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 2)])
def test_it_starts_at_zero_in_every_dimension(shape):
    layer = SelfAttention(len(shape), 8, heads=4)
    out = layer(torch.randn(2, 8, *shape))
    assert out.shape == (2, 8, *shape)
    assert not out.any()


def test_it_is_the_formula(attention):
    x = torch.randn(2, 6, 3, 4)
    qkv = attention.in_conv(x).flatten(2)  # (N, 18, positions)
    heads = []
    for head in range(2):
        rows = [slice(6 * part + 3 * head, 6 * part + 3 * head + 3) for part in range(3)]
        q, k, v = (qkv[:, r] for r in rows)
        q = F.normalize(q, dim=1) * attention.scale[head]
        weights = torch.einsum("ncq,nck->nqk", q, F.normalize(k, dim=1)).softmax(-1)
        heads.append(torch.einsum("nqk,nck->ncq", weights, v))
    wanted = attention.out_conv(torch.cat(heads, 1).view(2, 6, 3, 4))
    torch.testing.assert_close(attention(x), wanted)


def test_positions_are_a_set(attention):
    x = torch.randn(1, 6, 4, 4)
    order = torch.randperm(16)
    moved = attention(x.flatten(2)[..., order].view(1, 6, 4, 4))
    torch.testing.assert_close(moved.flatten(2), attention(x).flatten(2)[..., order])


def test_every_position_sees_every_other(attention):
    x = torch.randn(1, 6, 8, 8, requires_grad=True)
    attention(x)[0, 0, 0, 0].backward()
    assert (x.grad.abs().sum(1) > 0).all()


def test_huge_inputs_stay_finite(attention):
    assert attention(1e6 * torch.randn(1, 6, 4, 4)).isfinite().all()


def test_bf16_autocast_runs(attention):
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(torch.randn(1, 6, 4, 4)).isfinite().all()


def test_heads_divide_channels():
    with pytest.raises(ValueError, match="heads must divide the 6 channels, got 4"):
        SelfAttention(2, 6, heads=4)
