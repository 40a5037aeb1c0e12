"""What only a GPU can tell: streams, graphs, host synchronisation, tensors beyond 2^31 elements."""

import pytest
import torch
from torch import Tensor

from hvae import ops
from hvae.testing import (
    OpCase,
    gaussian_latent_case,
    gaussian_sample_case,
    logistic_mixture_nll_case,
    logistic_mixture_sample_case,
)

pytestmark = pytest.mark.gpu

CASES = [
    gaussian_latent_case(4, 6, (16, 16), width=8, residual=True),
    gaussian_sample_case(4, 6, (16, 16), width=8),
    logistic_mixture_nll_case(4, 3, (16, 16), mixtures=10),
    logistic_mixture_sample_case(4, 3, (16, 16), mixtures=10),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)


def on_device(case: OpCase) -> tuple[OpCase, dict[str, Tensor]]:
    """The case, and tensors of its own that stand for its inputs."""
    case = case.prepared(torch.float32, device="cuda")
    return case, {name: tensor.clone() for name, tensor in case.inputs.items()}


def run(case: OpCase, inputs: dict[str, Tensor]) -> list[Tensor]:
    """Outputs, and gradients of their sum."""
    wanted = {name: inputs[name].requires_grad_() for name in case.differentiable}
    outputs = case.call(inputs)
    if not wanted:
        return list(outputs)
    gradients = torch.autograd.grad(sum(o.sum() for o in outputs), list(wanted.values()))
    return [o.detach() for o in (*outputs, *gradients)]


def equal(actual: list[Tensor], expected: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@each_case
def test_ops_follow_the_current_stream(case):
    case, inputs = on_device(case)
    expected = run(case, inputs)
    late = {name: torch.zeros_like(tensor) for name, tensor in inputs.items()}
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)  # tens of milliseconds, in which another stream sees zeros
        for name, tensor in late.items():
            tensor.copy_(inputs[name].detach())
        actual = run(case, late)
    torch.cuda.synchronize()
    assert equal(actual, expected)


@each_case
def test_captured_graphs_take_new_inputs_and_noise(case):
    case, static = on_device(case)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            run(case, static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run(case, static)
    for shift in (0, 3):
        with torch.no_grad():
            if "rng" in static:
                static["rng"][1] += shift
            for name in case.differentiable:
                static[name].mul_(0.9)
        graph.replay()
        fresh = {name: tensor.detach().clone() for name, tensor in static.items()}
        assert equal(results, run(case, fresh))


@each_case
def test_ops_do_not_wait_for_the_device(case):
    case, inputs = on_device(case)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(case, inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def large_pixels() -> int:
    """Pixels of which three channels are more than 2^31 elements."""
    if torch.cuda.get_device_properties(0).total_memory < 60 * 2**30:
        pytest.skip("takes 60 GiB")
    return 2**31 // 3 + 4097


def test_a_mixture_of_more_than_2_31_elements(large_pixels):
    params = torch.randn(1, 3, large_pixels, device="cuda").requires_grad_()
    x = torch.randint(256, (1, 1, large_pixels), device="cuda", dtype=torch.uint8)
    nll = ops.logistic_mixture_nll(params, x, reduce="pixel")
    (grad,) = torch.autograd.grad(nll.sum(), params)
    last = params.detach()[..., -1000:].contiguous().requires_grad_()
    expected = ops.logistic_mixture_nll(last, x[..., -1000:].contiguous(), reduce="pixel")
    (expected_grad,) = torch.autograd.grad(expected.sum(), last)
    assert torch.equal(nll[..., -1000:], expected)
    assert torch.equal(grad[..., -1000:], expected_grad)


def test_a_latent_of_more_than_2_31_elements(large_pixels):
    shape = (1, 4, large_pixels * 3 // 4)
    q, p = (torch.randn(shape, device="cuda") for _ in range(2))
    drawn = ops.gaussian_latent(q, p, rng=ops.make_rng(0, device="cuda"), reduce="none")
    ends = [t[..., -1000:].contiguous() for t in (q, p)]
    expected = ops.gaussian_latent(*ends, rng=ops.make_rng(0, device="cuda"), reduce="none")
    assert torch.equal(drawn.kl[..., -1000:], expected.kl)
    assert drawn.z[..., -1000:].std() > 0.5
