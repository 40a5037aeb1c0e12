"""A training step and sampling, as they are measured."""

import pytest
import torch

from hvae.bench import sampling, training_step
from hvae.bench.device import model_meter
from hvae.bench.measure import CpuMeter


@pytest.fixture
def tiny(monkeypatch):
    """A layout of two groups, where measuring takes no time."""
    layout = {"encoder": "32x1,32d8,4x1", "decoder": "4x1,32m4", "width": 8, "z_channels": 2}
    for key, value in layout.items():
        monkeypatch.setitem(training_step.LAYOUT, key, value)


def test_saved_bytes_are_those_of_the_graph(monkeypatch):
    """A product keeps both factors; what several nodes share counts once, parameters not at all."""
    model = torch.nn.Linear(1, 1)
    model.device = "cpu"
    x = torch.ones(1000, requires_grad=True)

    def loss(*_):
        y = x.exp()  # keeps its result
        return (y * y).sum() + model.weight.pow(2).sum()

    monkeypatch.setattr(training_step, "loss_of", loss)
    assert training_step.saved_bytes(model, "vdvae") == 4000


def test_a_step_changes_the_weights():
    model = training_step.make_model("vdvae")
    before = model.decoder.out_conv.weight.clone()
    training_step.step_of(model, "vdvae")()
    assert not torch.equal(model.decoder.out_conv.weight, before)


def test_every_variant_of_the_step_is_measured(tiny, monkeypatch):
    memory = {"idle": 1, "peak": 3}
    monkeypatch.setattr(training_step, "_memory_of_process", lambda variant: memory)
    figures = training_step.run(CpuMeter(sample_ms=0.0), rounds=2)
    assert [f.variant for f in figures] == list(training_step.VARIANTS)
    assert figures[0].ratio.p50 == 1
    assert all((f.batch, f.resident_bytes, f.saved_bytes > 0) == (8, 3, True) for f in figures)


def test_every_variant_samples_every_batch(tiny):
    figures = sampling.run(CpuMeter(sample_ms=0.0), rounds=2, batches=(1, 3))
    assert {(f.variant, f.batch) for f in figures} == {
        (variant, batch) for variant in training_step.VARIANTS for batch in (1, 3)
    }
    for f in figures:
        assert (f.ratio.p50 == 1) == (f.variant in ("vdvae", "hvae"))


def test_the_reference_draws_the_images_of_the_kernels(tiny):
    model = training_step.make_model("hvae").eval()
    fused, reference = (sampling.call_of(model, 2, reference)() for reference in (False, True))
    assert (fused != reference).double().mean() < 0.01


@pytest.mark.gpu
def test_a_step_and_sampling_are_measured_on_a_gpu(tiny):
    meter = model_meter("cuda")
    for step in training_step.run(meter, rounds=1):
        assert 0 < step.idle_bytes < step.resident_bytes
    assert all(f.time_ms.p50 > 0 for f in sampling.run(meter, rounds=1))
