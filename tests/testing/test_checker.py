"""The checker finds the faults it is there for: a check that cannot fail proves nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hvae.ops.common import reference_forced
from hvae.testing import (
    OpCase,
    check_against_reference,
    check_registration,
    check_repeatable,
    gaussian_latent_case,
    poisoned_memory,
)


def faulty(fault: Callable[[Tensor], Tensor]) -> OpCase:
    """A square whose reference is right, and whose op has a fault."""

    def call(inputs):
        square = inputs["x"].square()
        return (square if reference_forced() else fault(square),)

    return OpCase("square", call, {"x": torch.linspace(-1, 2, 4001)}, ("x",))


class Halved(torch.autograd.Function):
    """The identity, with half its gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad / 2


def partly_written(square):
    output = torch.empty_like(square)
    output[:-1] = square[:-1]
    return output


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda square: square * (1 + 1e-5), "output 0: relative error 1e-05"),
        (lambda square: square + 1e-6, r"output 0: .* bias .*e-0[67]"),
        (partly_written, "output 0: relative error nan"),
        (Halved.apply, "gradient of x: relative error 0.5"),
    ],
)
def test_a_fault_is_found(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_against_reference(faulty(fault))


def test_a_sound_op_passes():
    check_against_reference(faulty(lambda square: square))


def test_results_that_vary_are_found():
    with pytest.raises(AssertionError, match="square: output 0 with 3 threads"):
        check_repeatable(faulty(lambda square: square + torch.get_num_threads()), threads=[3])


def test_a_case_without_an_op_is_found():
    with pytest.raises(AssertionError, match="square calls no op of hvae"):
        check_registration(faulty(lambda square: square))


def test_fresh_memory_is_poisoned():
    with poisoned_memory():
        for fresh in (torch.empty(3), torch.empty_like(torch.ones(3)), torch.ones(2).new_empty(3)):
            assert fresh.isnan().all()


@pytest.mark.parametrize("layout", ["strided", "channel_block", "channels_last_block"])
def test_layouts_keep_the_values(layout):
    case = gaussian_latent_case(2, 3, (5, 4)).prepared(torch.float32)
    arranged = case.prepared(torch.float32, layout)
    assert not arranged.inputs["q"].is_contiguous()
    for name, tensor in case.inputs.items():
        assert torch.equal(arranged.inputs[name], tensor)
