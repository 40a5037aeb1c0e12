"""`torch.compile(fullgraph=True)` of the whole model: a training forward and backward."""

from functools import partial

import pytest
import torch
from torch import Tensor

from hvae import ops
from hvae.losses import objective
from hvae.models import HVAE, ModelConfig
from hvae.models.recompute import Recompute

TWO_GROUPS = {"size": (4, 4), "encoder": "4x1,4d4,1x1", "decoder": "1x1,4m1,4x1"}
SEVEN_GROUPS = {
    "size": (16, 16),
    "encoder": "16x2,16d2,8x1,8d2,4x1,4d4,1x1",
    "decoder": "1x1,4m1,4x2,8m4,8x2,16m8,16x2",
}


@pytest.mark.parametrize(
    ("layout", "channels"),
    [
        pytest.param(TWO_GROUPS, 3, id="two groups"),
        pytest.param(SEVEN_GROUPS, 1, id="seven groups, grey", marks=pytest.mark.slow),
        pytest.param(SEVEN_GROUPS, 3, id="seven groups", marks=pytest.mark.slow),
    ],
)
def test_a_training_pass_compiles_without_graph_breaks(layout, channels):
    torch.compiler.reset()
    model = HVAE(ModelConfig.model_validate({"channels": channels, "width": 8, **layout}))
    with torch.no_grad():
        for parameter in model.parameters():  # zeros at initialisation would hide gradients
            parameter.add_(0.05 * torch.randn_like(parameter))
    compiled = torch.compile(model, fullgraph=True)
    x = torch.randint(0, 256, (2, channels, *model.config.size), dtype=torch.uint8)
    for first_sample in (0, 5):  # not the one it was traced with
        rng = ops.make_rng(1, first_sample)
        wanted_loss, wanted = training_pass(model, model, x, rng)
        loss, gradient = training_pass(compiled, model, x, rng)
        torch.testing.assert_close(loss, wanted_loss, rtol=1e-6, atol=0.0)
        assert (gradient - wanted).norm() < 1e-5 * wanted.norm()


@pytest.mark.parametrize("level", ["none", "block"])
def test_regional_compilation_compiles_kinds_of_bottlenecks(monkeypatch, level):
    """Without code generation, which is tested above and takes minutes for every kind."""
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    layout = {"size": (8, 8), "encoder": "8x8", "decoder": "8x12"}
    model = HVAE(ModelConfig.model_validate({"channels": 1, "width": 8, **layout}))
    x, rng = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8), ops.make_rng(1, 3)
    wanted_loss, wanted = training_pass(model, model, x, rng)
    model.recompute(Recompute({8: level}, {8: level}))
    model.compile_blocks()
    torch._dynamo.utils.counters.clear()
    loss, gradient = training_pass(model, model, x, rng)
    torch.testing.assert_close(loss, wanted_loss, rtol=1e-6, atol=0.0)
    assert (gradient - wanted).norm() < 1e-5 * wanted.norm()
    assert 0 < torch._dynamo.utils.counters["stats"]["unique_graphs"] < 9  # of 44 bottlenecks
    assert not torch._dynamo.utils.counters["graph_break"]


def training_pass(
    call: torch.nn.Module, model: HVAE, x: Tensor, rng: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss, and the gradient of all parameters as one vector."""
    loss = objective(call(x, rng=rng), model.num_dims, beta=1.0, free_bits=0.0)
    gradients = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
    return loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])
