"""The `vdvae` preset against values of the published code (openai/vdvae, commit ea35b49).

The fixture holds weights under the published names, a batch, the noise, and the ELBO's parts in
float32 and float64; its JSON says how each was made. It has one width and no truncation: those are
compared with a plain rendering of the published computation, which the fixture checks first.
"""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from hvae import ops
from hvae.distributions import LikelihoodConfig, LogisticMixture
from hvae.models import HVAE, Elbo, ModelConfig
from hvae.models.vdvae import Structure, load_published, to_published

FIXTURE = Path(__file__).parents[1] / "golden" / "vdvae_tiny"
CIFAR10 = {"input_mean": 120.63838, "input_std": 64.16736}


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return load_file(FIXTURE.with_suffix(".safetensors"))


@pytest.fixture(scope="module")
def published(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in tensors.items() if k.startswith(("encoder.", "decoder."))}


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    return json.loads(FIXTURE.with_suffix(".json").read_text())


def make_model(published: dict[str, Tensor], values: dict[str, Any], **likelihood: Any) -> HVAE:
    settings = values["H"]
    config = Structure.of(published).config(settings["enc_blocks"], settings["dec_blocks"])
    likelihood = {"mixtures": settings["num_mixtures"], **CIFAR10, **likelihood}
    model = HVAE(config.model_copy(update={"likelihood": LikelihoodConfig(**likelihood)}))
    load_published(model, published)
    return model


@torch.no_grad()
def elbo_of(model: HVAE, tensors: dict[str, Tensor], dtype: torch.dtype, compiled: bool) -> Elbo:
    model = model.to(dtype)
    pixels = tensors["pixels"].movedim(-1, 1)
    eps = [tensors[f"eps.{group}"].to(dtype) for group in range(model.num_groups)]
    forward = torch.compile(model, fullgraph=True) if compiled else model
    elbo: Elbo = forward(pixels, eps=eps)
    return elbo


def figures_of(elbo: Elbo, num_dims: int) -> dict[str, Any]:
    """As the fixture states them: nats per dimension, and nats per image for each group."""
    return {
        "elbo": -elbo.elbo.mean().item() / num_dims,
        "distortion": elbo.nll.mean().item() / num_dims,
        "rate": elbo.kl.sum(1).mean().item() / num_dims,
        "kl_per_layer": elbo.kl.mean(0).tolist(),
    }


TOLERANCES = {
    torch.float64: {"elbo": 1e-9, "distortion": 1e-9, "rate": 1e-9, "kl_per_layer": 1e-9},
    torch.float32: {"elbo": 1e-6, "distortion": 1e-6, "rate": 1e-5, "kl_per_layer": 1e-5},
}


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("path", [contextlib.nullcontext, ops.reference], ids=["op", "reference"])
@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
def test_every_figure_of_the_published_code(tensors, published, values, dtype, path, compiled):
    model = make_model(published, values, form="compat")
    with path():
        figures = figures_of(elbo_of(model, tensors, dtype, compiled), model.num_dims)
    expected = values["float64"]  # float32 too: the published float32 is further from it than ours
    for name, tolerance in TOLERANCES[dtype].items():
        assert figures[name] == pytest.approx(expected[name], rel=tolerance), name


def test_the_network_sees_what_the_published_one_saw(tensors, published, values):
    pixels = tensors["pixels"].movedim(-1, 1)
    x = make_model(published, values).likelihood.network_input(pixels)
    assert torch.equal(x, tensors["x"].movedim(-1, 1))


# The exact form's target is the level itself, the fixture's is rounded to float32.
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-8)], ids=str
)
@pytest.mark.parametrize("bits", [8, 5])
def test_distortion_in_the_exact_form(tensors, published, values, dtype, tolerance, bits):
    model = make_model(published, values, bits=bits)
    nll = elbo_of(model, tensors, dtype, compiled=False).nll / model.num_dims
    expected = values["distortion_variants"]["per_image"][f"exact_{bits}bit"]
    assert nll.tolist() == pytest.approx(expected, rel=tolerance)


def test_distortion_at_5_bits_by_the_published_formula(tensors, published, values):
    model = make_model(published, values, bits=5, form="compat")
    nll = elbo_of(model, tensors, torch.float64, compiled=False).nll / model.num_dims
    assert nll.mean().item() == pytest.approx(
        values["distortion_variants"]["compat_5bit"], rel=1e-9
    )


@dataclass
class Published:
    """The published computation, step by step, on tensors with published names."""

    tensors: dict[str, Tensor]
    encoder: str
    decoder: str
    widths: dict[int, int]

    def conv(self, name: str, x: Tensor) -> Tensor:
        weight = self.tensors[f"{name}.weight"]
        return F.conv2d(x, weight, self.tensors[f"{name}.bias"], padding=weight.shape[2] // 2)

    def bottleneck(self, stem: str, x: Tensor) -> Tensor:
        for conv in ("c1", "c2", "c3", "c4"):
            x = self.conv(f"{stem}.{conv}", F.gelu(x))
        return x

    def features(self, x: Tensor) -> dict[int, Tensor]:
        x = self.conv("encoder.in_conv", x)
        features = {x.shape[2]: x}
        blocks = [
            (int(factor) if kind == "d" else 1)
            for resolution, kind, factor in map(split_token, self.encoder.split(","))
            for _ in range(int(factor) if kind == "x" else 1)
        ]
        for index, pool in enumerate(blocks):
            x = x + self.bottleneck(f"encoder.enc_blocks.{index}", x)
            x = F.avg_pool2d(x, pool)
            wide = torch.zeros(len(x), self.widths[x.shape[2]], *x.shape[2:], dtype=x.dtype)
            wide[:, : x.shape[1]] = x
            x = features[x.shape[2]] = wide
        return features

    def elbo_parts(self, x: Tensor, eps: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """KL (N,) of each block, and the head's output."""
        features = self.features(x)
        starts = [t for name, t in self.tensors.items() if name.startswith("decoder.bias_xs.")]
        state = {t.shape[2]: t.repeat(len(x), 1, 1, 1) for t in starts}
        blocks = [
            (int(resolution), int(argument) if kind == "m" else None)
            for resolution, kind, argument in map(split_token, self.decoder.split(","))
            for _ in range(int(argument) if kind == "x" else 1)
        ]
        kls = []
        for index, (resolution, mix_from) in enumerate(blocks):
            stem = f"decoder.dec_blocks.{index}"
            h = state.get(resolution, torch.zeros_like(features[resolution]))
            if mix_from is not None:
                coarse = state[mix_from][:, : h.shape[1]]
                h = h + F.interpolate(coarse, scale_factor=resolution // mix_from)
            z_channels = eps[index].shape[1]
            mean_q, log_q = self.bottleneck(
                f"{stem}.enc", torch.cat((h, features[resolution]), 1)
            ).chunk(2, 1)
            p = self.bottleneck(f"{stem}.prior", h)
            mean_p, log_p = p[:, :z_channels], p[:, z_channels : 2 * z_channels]
            h = h + p[:, 2 * z_channels :]
            z = mean_q + log_q.exp() * eps[index]
            kl = log_p - log_q - 0.5
            kl = kl + 0.5 * (log_q.exp() ** 2 + (mean_q - mean_p) ** 2) / log_p.exp() ** 2
            kls.append(kl.flatten(1).sum(1))
            h = h + self.conv(f"{stem}.z_proj", z)
            state[resolution] = h + self.bottleneck(f"{stem}.resnet", h)
        out = state[max(state)] * self.tensors["decoder.gain"] + self.tensors["decoder.bias"]
        return kls, self.conv("decoder.out_net.out_conv", out)


def split_token(token: str) -> tuple[str, str, str]:
    kind = next((letter for letter in "xdm" if letter in token), "")
    resolution, _, argument = token.partition(kind) if kind else (token, "", "1")
    return resolution, kind or "x", argument


def test_the_rendering_gives_the_fixtures_kl(tensors, published, values):
    settings = values["H"]
    widths = dict.fromkeys((32, 16, 8, 4, 1), settings["width"])
    rendering = Published(
        {name: tensor.double() for name, tensor in published.items()},
        settings["enc_blocks"],
        settings["dec_blocks"],
        widths,
    )
    eps = [tensors[f"eps.{group}"].double() for group in range(9)]
    kl, _ = rendering.elbo_parts(tensors["x"].movedim(-1, 1).double(), eps)
    assert [group.mean().item() for group in kl] == pytest.approx(
        values["float64"]["kl_per_layer"], rel=1e-12
    )


def test_widths_that_differ_by_resolution():
    """Features are filled up with zeros, the state is cut, and fine levels start from zeros."""
    encoder, decoder = "16x1,16d2,8x2,8d2,4x1,4d4,1x1", "1x1,4m1,4x1,8m4,8,16m8,16x2"
    config = ModelConfig(
        preset="vdvae",
        size=(16, 16),
        channels=3,
        encoder=encoder,
        decoder=decoder,
        width=8,
        widths={8: 16, 4: 24, 1: 24},
        z_channels=3,
        no_bias_above=4,
        likelihood=LikelihoodConfig(mixtures=2),
    )
    generator = torch.Generator().manual_seed(0)
    model = HVAE(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        published = to_published(model)
        x = torch.randint(0, 256, (2, 3, 16, 16), generator=generator, dtype=torch.uint8)
        eps = [
            torch.randn(2, *shape, generator=generator, dtype=torch.float64)
            for shape in model.latent_shapes
        ]
        rendering = Published(
            {name: tensor.double() for name, tensor in published.items()},
            encoder,
            decoder,
            {16: 8, 8: 16, 4: 24, 1: 24},
        )
        elbo = model.double()(x, eps=eps)
        scaled = model.likelihood.network_input(x).double()
        kl, params = rendering.elbo_parts(scaled, eps)
    torch.testing.assert_close(elbo.kl, torch.stack(kl, 1), rtol=1e-10, atol=0)
    nll = -LogisticMixture(3, mixtures=2)(params).log_prob(x)
    torch.testing.assert_close(elbo.nll, nll, rtol=1e-10, atol=0)
