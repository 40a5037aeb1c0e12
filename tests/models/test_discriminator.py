"""The discriminator: one logit an image, alone with it, and twice differentiable."""

import doctest

import pytest
import torch
from torch import nn

from hvae.errors import UserError
from hvae.losses.adversarial import gradient_penalty
from hvae.models import HVAE, ModelConfig
from hvae.models import discriminator as module
from hvae.models.discriminator import Discriminator, DiscriminatorConfig
from hvae.nn.feature_maps import FeatureMaps

SIZES = {1: (32,), 2: (16, 24), 3: (8, 8, 8)}


def make(ndim=2, patch=1, size=None, start="fresh", **settings):
    torch.manual_seed(0)
    finest = min(size or SIZES[ndim]) // patch
    config = ModelConfig(
        size=size or SIZES[ndim], channels=2, patch=patch, encoder=f"{finest}x1",
        decoder=f"{finest}x1", width=8,
    )  # fmt: skip
    return Discriminator(DiscriminatorConfig(start=start, **settings), HVAE(config))


def is_bias_of_logits(name):
    return ".logits." in name and name.endswith(".bias")


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("scales", [1, 2])
def test_one_logit_an_image(ndim, scales):
    network = make(ndim, scales=scales)
    x = torch.randn(3, 2, *SIZES[ndim])
    logits, features = network.judge(x)
    assert logits.shape == (3,)
    assert logits.dtype == torch.float32
    assert torch.equal(network(x), logits)
    assert len(features) >= scales
    assert all(maps.shape[0] == 3 for maps in features)


@pytest.mark.parametrize("patch", [1, 2])
def test_an_image_is_judged_by_itself(patch):
    network = make(patch=patch)
    x = torch.randn(4, 2, 16, 24)
    alone = torch.cat([network(row[None]) for row in x])
    torch.testing.assert_close(network(x), alone)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("blur", [0.0, 2.0])
def test_the_penalty_reaches_every_weight(ndim, blur):
    network = make(ndim, scales=2, blur=blur)
    x = torch.randn(3, 2, *SIZES[ndim], requires_grad=True)
    gradient_penalty(x, network(x)).backward()
    without = {
        name for name, weight in network.named_parameters()
        if weight.grad is None or not weight.grad.any()
    }  # fmt: skip
    # These move all logits alike, and no gradient in the image.
    assert without == {n for n, _ in network.named_parameters() if is_bias_of_logits(n)}


def test_the_second_derivative_is_that_of_finite_differences():
    network = make(size=(8, 8), scales=2, blocks=1).double()
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    names = ["scales.0.encoder.in_conv.weight", "scales.1.logits.4.weight"]
    weights = [network.get_parameter(name).detach().clone().requires_grad_() for name in names]

    def penalty(*values):
        images = x.clone().requires_grad_()
        state = dict(zip(names, values, strict=True))
        return gradient_penalty(images, torch.func.functional_call(network, state, (images,)))

    assert torch.autograd.gradcheck(penalty, weights)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_it_starts_as_a_copy_of_the_encoder(ndim):
    config = ModelConfig(
        size=SIZES[ndim], channels=2, encoder=f"{min(SIZES[ndim])}x1,{min(SIZES[ndim])}d2",
        decoder=f"{min(SIZES[ndim])}x1", width=8,
    )  # fmt: skip
    model = HVAE(config)
    network = Discriminator(DiscriminatorConfig(scales=2), model)
    x = torch.randint(256, (3, 2, *SIZES[ndim]), dtype=torch.uint8)
    wanted = model.encoder(model.likelihood.network_input(x))
    _, features = network.judge(x / 127.5 - 1)
    for maps, expected in zip(features, wanted.values(), strict=False):
        torch.testing.assert_close(maps, expected)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    assert all(
        weight.any() for name, weight in model.encoder.named_parameters() if "bias" not in name
    )


def test_a_fresh_network_is_no_linear_one():
    encoder = make(size=(32, 32), width=64).scales[0].encoder
    x = torch.randn(4, 64, 32, 32)
    ratio = encoder.blocks[0](x).std() * len(encoder.blocks) ** 0.5 / x.std()
    assert 0.5 < ratio < 2  # with torch's default weights 0.008


def test_fine_detail_does_not_pass_the_blur():
    x = torch.rand(2, 2, 16, 24) - 0.5
    checkers = 0.5 * (-1.0) ** (torch.arange(16)[:, None] + torch.arange(24))
    seen, unseen = ([n(x), n(x + checkers)] for n in (make(), make(blur=2.0)))
    assert (unseen[0] - unseen[1]).abs().max() < 0.05 * (seen[0] - seen[1]).abs().max()


def test_logits_are_float32_under_autocast():
    network = make()
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.randn(2, 2, 16, 24)).dtype == torch.float32


def test_sides_that_do_not_halve_end_the_ladder():
    network = make(size=(28, 28))
    assert network(torch.randn(1, 2, 28, 28)).shape == (1,)


def test_scales_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="divide by 4"):
        make(size=(14, 14), scales=3)


def test_examples():
    assert doctest.testmod(module).failed == 0


def maps():
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.SiLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.SiLU(),
    )  # fmt: skip
    return FeatureMaps(network.requires_grad_(False), 16, (127.5,) * 3, (127.5,) * 3)


def looking(**settings):
    torch.manual_seed(0)
    config = ModelConfig(size=(16, 24), channels=3, encoder="16x1", decoder="16x1", width=8)
    return Discriminator(DiscriminatorConfig(**settings), HVAE(config), maps())


def test_another_network_is_looked_through_and_stays_out_of_the_weights():
    network, x = looking(), torch.randn(3, 3, 16, 24, requires_grad=True)
    assert not any(name.startswith("through.maps") for name in network.state_dict())
    looked = network.look(x.detach())
    torch.testing.assert_close(network(x, looked), network(x))
    apart = torch.cat([network(row[None]) for row in x])
    torch.testing.assert_close(network(x), apart)
    (through,) = torch.autograd.grad(network(x).sum(), x)
    (beside,) = torch.autograd.grad(network(x, looked).sum(), x)
    assert (through - beside).norm() > 1e-3 * beside.norm()


def test_the_penalty_is_taken_at_maps_and_reaches_their_heads():
    network, x = looking(blur=0.5), torch.randn(3, 3, 16, 24, requires_grad=True)
    looked = [each.requires_grad_() for each in network.look(x.detach())]
    logits = network(x, looked)
    whole = gradient_penalty(x, logits, looked)
    gradients = torch.autograd.grad(logits.sum(), [x, *looked], retain_graph=True)
    torch.testing.assert_close(whole, sum(g.square().sum() for g in gradients) / 3)
    whole.backward()
    weights = {n: p for n, p in network.through.named_parameters() if n.endswith("weight")}
    assert len(weights) == 9
    assert all(weight.grad.any() for weight in weights.values())
