"""Twenty steps of tiny runs give the losses on file: numerics do not change unnoticed.

A change on purpose takes a line in CHANGELOG.md with its reason, and

    python -m pytest tests/golden --update-golden
"""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from hvae import ops
from hvae.data import DataConfig, Loader, open_source
from hvae.models import HVAE, ModelConfig
from hvae.training import TrainConfig
from hvae.training.step import Stepper

FILE = Path(__file__).with_name("losses.json")
STEPS, BATCH = 20, 4
# Below what another processor or torch rounds differently over 20 steps, above any change meant.
TOLERANCE = {"rel": 1e-4, "abs": 1e-8}  # absolute: a KL near zero is a difference of ones

MODELS = {
    "hvae": ModelConfig(
        size=(16, 16),
        channels=1,
        encoder="8x1,8d2,4x1,4d4,1x1",
        decoder="1x1,4m1,4x1,8m4",
        patch=2,
        width=16,
        widths={4: 24, 1: 12},
        z_channels=3,
    ),
    "vdvae": ModelConfig(
        preset="vdvae",
        size=(8, 12),
        channels=3,
        encoder="8x1,8d4,2x1",
        decoder="2x2,8m2,8x1",
        width=16,
        z_channels=4,
        no_bias_above=4,
    ),
}
TRAIN = {
    "hvae": TrainConfig(images=160, lr=2e-3, warmup_images=40, precision="fp32"),
    "vdvae": TrainConfig(images=160, lr=1e-3, warmup_images=8, precision="fp32", optimizer="adamw"),
}


Golden = dict[str, list[dict[str, float]]]


def losses(name: str) -> Iterator[dict[str, float]]:
    """What each step of a run reports, in nats per dimension."""
    config = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stepper = Stepper(HVAE(config), TRAIN[name], seed=0)
    channels, *size = stepper.model.shape
    source = open_source(DataConfig(source="shapes", size=tuple(size), channels=channels), "train")
    for batch, _ in zip(Loader(source, batch=BATCH, seed=0).batches(0), range(STEPS), strict=False):
        report = stepper.step(batch.images)
        yield {
            "objective": report.objective,
            "nll": report.nll / stepper.model.num_dims,
            "kl": sum(report.kl) / stepper.model.num_dims,
        }


@pytest.fixture(scope="module")
def golden(request: pytest.FixtureRequest) -> Golden:
    """The losses on file, by model; written first if asked, from the references."""
    if request.config.getoption("--update-golden", default=False):
        with ops.reference():
            text = json.dumps({name: list(losses(name)) for name in MODELS}, indent=1)
        FILE.write_text(text + "\n")
    return json.loads(FILE.read_text())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kernels", ["as loaded", "references"])
def test_losses_are_those_on_file(golden: Golden, name: str, kernels: str) -> None:
    with ops.reference() if kernels == "references" else nullcontext():
        found = list(losses(name))
    assert len(found) == len(golden[name]) == STEPS
    for step, (now, then) in enumerate(zip(found, golden[name], strict=True), 1):
        assert now == pytest.approx(then, **TOLERANCE), f"step {step}"


@pytest.mark.parametrize("name", MODELS)
def test_losses_are_repeatable_to_the_bit(name):
    assert list(losses(name)) == list(losses(name))
