"""The NaN locator names the first module, and leaves no hook behind."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hvae.models import HVAE, Elbo, ModelConfig
from hvae.training.locate import locate

MODEL = ModelConfig(
    size=(8, 8), channels=1, encoder="8x1,8d2,4x1", decoder="4x1,8m4", width=8, z_channels=2
)


@pytest.fixture
def model() -> HVAE:
    return HVAE(MODEL)


def losses_of(model: HVAE) -> Callable[[], tuple[Elbo, Tensor]]:
    x = torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8)

    def losses() -> tuple[Elbo, Tensor]:
        elbo = model(x)
        return elbo, -elbo.elbo.mean()

    return losses


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def spoil(model: HVAE, name: str) -> None:
    def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
        output = output.clone()
        output[(0,) * output.ndim] = math.inf
        return output

    model.get_submodule(name).register_forward_hook(hook)


@pytest.mark.parametrize(
    "name",
    ["encoder.stem", "decoder.blocks.0.posterior.c4", "decoder.blocks.1.z_proj",
     "decoder.out_conv"],
)  # fmt: skip
def test_the_module_that_spoils_the_forward_is_named(model, name):
    if name not in dict(model.named_modules()):
        name = next(n for n, _ in model.encoder.named_modules(prefix="encoder") if n.count(".") > 1)
    spoil(model, name)
    place = locate(model, losses_of(model))
    assert place.module == name
    assert place.text == f"first not finite: the output of {name}"


def test_a_parameter_that_is_not_finite_is_named(model):
    with torch.no_grad():
        model.decoder.blocks[1].prior.c1.weight[0] = math.nan
    place = locate(model, losses_of(model))
    assert place.module == "decoder.blocks.1.prior.c1"
    assert place.text == "first not finite: the parameter decoder.blocks.1.prior.c1.weight"


def test_a_gradient_that_is_not_finite_is_named_by_the_module_it_arrives_at_first(model):
    spoiled = model.get_submodule("decoder.blocks.1.resnet.c3")

    def hook(_: nn.Module, __: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient * math.nan)

    spoiled.register_forward_hook(hook)
    place = locate(model, losses_of(model))
    assert place.module == "decoder.blocks.1.resnet.c3"
    assert "the gradient at the output of decoder.blocks.1.resnet.c3" in place.text


def test_the_gradient_of_a_parameter_outside_modules_is_named(model):
    model.decoder.gain.register_hook(lambda gradient: gradient * math.nan)
    place = locate(model, losses_of(model))
    assert place.module == "decoder"
    assert place.text == "first not finite: the gradient of the parameter decoder.gain"


def test_a_likelihood_that_is_not_finite_is_named_with_the_images(model):
    losses = losses_of(model)

    def spoiled() -> tuple[Elbo, Tensor]:
        elbo, _ = losses()
        nll = elbo.nll * torch.tensor([1.0, math.nan, math.nan])
        return elbo._replace(nll=nll), nll.mean()

    place = locate(model, spoiled)
    assert place.module == "likelihood"
    assert place.text == (
        "first not finite: -ln p(x | z) of the likelihood (of images 1, 2 in a batch of 3)"
    )


def test_a_kl_that_is_not_finite_is_named_by_its_group(model):
    losses = losses_of(model)

    def spoiled() -> tuple[Elbo, Tensor]:
        elbo, _ = losses()
        kl = elbo.kl * torch.tensor([1.0, math.inf])
        return elbo._replace(kl=kl), kl.sum()

    assert locate(model, spoiled).module == "decoder.blocks.1"


def test_without_a_fault_the_largest_term_is_named(model):
    place = locate(model, losses_of(model))
    assert place.module == "likelihood"
    assert place.text.startswith("all numbers are finite in a re-run, the largest term is -ln p")


def test_nothing_of_the_search_is_left(model):
    spoil(model, "decoder.out_conv")
    before = hooks(model)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    locate(model, losses_of(model))
    assert hooks(model) == before
    assert all(parameter.grad is None for parameter in model.parameters())
