"""The spectral penalty against singular values by decomposition."""

import pytest
import torch
from torch import nn

from hvae.losses import SpectralPenalty


def weights() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"wide": (3, 40, 3, 3), "tall": (50, 2, 1), "square": (8, 8)}
    return {n: nn.Parameter(torch.randn(s, generator=generator)) for n, s in shapes.items()}


def exact(named: dict[str, nn.Parameter]) -> float:
    return sum(torch.linalg.matrix_norm(w.flatten(1), ord=2).item() for w in named.values())


def test_it_is_the_sum_of_the_largest_singular_values():
    named = weights()
    penalty = SpectralPenalty(named)
    for _ in range(20):
        value = penalty()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact(named), rel=1e-5)


def test_it_is_near_at_the_first_call_and_never_above():
    named = weights()
    value = SpectralPenalty(named)().item()
    assert 0.98 * exact(named) < value <= exact(named) * (1 + 1e-6)


def test_its_gradient_is_that_of_the_decomposition():
    named = weights()
    penalty = SpectralPenalty(named)
    for _ in range(50):
        value = penalty()
    value.backward()
    for weight in named.values():
        u, _, v = torch.linalg.svd(weight.detach().flatten(1), full_matrices=False)
        expected = torch.outer(u[:, 0], v[0]).view_as(weight)
        torch.testing.assert_close(weight.grad, expected, atol=1e-3, rtol=1e-3)


def test_it_follows_weights_that_move():
    named = weights()
    penalty = SpectralPenalty(named)
    with torch.no_grad():
        named["square"].mul_(7.0)
    for _ in range(20):
        value = penalty()
    assert value.item() == pytest.approx(exact(named), rel=1e-5)


def test_zeros_cost_nothing_and_do_not_end_the_iteration():
    weight = nn.Parameter(torch.zeros(4, 6))
    penalty = SpectralPenalty({"prior": weight})
    value = penalty()
    value.backward()
    assert value.item() == 0
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
    with torch.no_grad():
        weight.copy_(torch.arange(24.0).view(4, 6))
    for _ in range(5):
        value = penalty()
    assert value.item() == pytest.approx(exact({"prior": weight}), rel=1e-5)


def test_its_state_goes_on_to_the_bit():
    first, second = (SpectralPenalty(weights()) for _ in range(2))
    for _ in range(3):
        first()
    second.load({name: vector.clone() for name, vector in first.tensors().items()})
    assert torch.equal(first(), second())
    assert all(torch.equal(v, second.tensors()[name]) for name, v in first.tensors().items())


def test_half_precision_is_computed_in_float32():
    weight = nn.Parameter(torch.randn(5, 9).bfloat16())
    assert SpectralPenalty({"w": weight})().dtype == torch.float32


def test_no_weight_is_refused():
    with pytest.raises(ValueError, match="wanted at least one weight"):
        SpectralPenalty({})
