"""The adversarial stage from a run folder: frozen, resumable, checked for harm."""

import json
import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

import hvae
from hvae import checkpoint
from hvae.data import DataConfig, open_source
from hvae.data.originals import Chosen
from hvae.errors import TrainingError, UserError
from hvae.inference import reconstruct
from hvae.models import HVAE, ModelConfig
from hvae.ops import make_rng
from hvae.training import fit
from hvae.training import refinement as module
from hvae.training.harm import Harm, find_harm
from hvae.training.refine import refine
from hvae.training.refine_config import HarmConfig
from hvae.training.refine_step import RefineStepper

SMALL = (
    "refine.images=24", "refine.batch=4", "refine.log_every=8", "refine.checkpoint_every=8",
    "refine.sample_every=16", "refine.harm.images=16",
)  # fmt: skip
OUTPUT = "refine.refiner.output=true"
LENIENT = ("refine.harm.psnr=100", "refine.harm.colour=300", "refine.harm.recall=0")


@pytest.fixture
def run(tiny, tmp_path):
    """A finished run of seconds."""
    fit(tiny())
    return tmp_path / "tiny"


def weights_of(run):
    folder = checkpoint.newest_complete(run).checkpoint
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _stopping(take, after):
    """A step that sends the process a signal once so many were taken."""

    def step_and_stop(self, *args, **options):
        report = take(self, *args, **options)
        if self.steps == after:
            os.kill(os.getpid(), signal.SIGTERM)
        return report

    return step_and_stop


def rows(run, kind):
    lines = (run / "refine" / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def test_a_stage_leaves_a_refiner_a_log_and_sheets(run):
    result = refine(run, [*SMALL, *LENIENT, OUTPUT])
    assert (result.images, result.stopped, result.weakened) == (24, False, 0)
    assert [row["images"] for row in rows(run, "refine")] == [8, 16, 24]
    assert [row["images"] for row in rows(run, "harm")] == [8, 16, 24]
    names = {"margin", "penalty_real", "penalty_fake", "grad_norm", "l1", "features", "lowpass"}
    assert names <= rows(run, "refine")[0].keys()
    sheets = sorted(path.name for path in (run / "refine" / "samples").iterdir())
    assert sheets == ["samples-000000016.png", "samples-000000024.png"]
    model = hvae.load(run)
    assert model.refiner is not None
    assert not torch.equal(model.sample(4), model.sample(4, refined=False, output="mean"))


def test_the_likelihood_is_what_it_was(run):
    before = weights_of(run)
    x = torch.randint(256, (8, 1, 8, 8), dtype=torch.uint8)
    elbo = hvae.load(run)(x, rng=make_rng(0)).elbo
    refine(run, [*SMALL, *LENIENT])
    assert weights_of(run) == before
    assert torch.equal(hvae.load(run)(x, rng=make_rng(0)).elbo, elbo)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_stage_has_the_number_format_of_its_run(tiny, tmp_path, monkeypatch, precision):
    fit(tiny(f"train.precision={precision}"))
    take, formats = RefineStepper.step, []

    def noted(self, *args, **options):
        formats.append(self.bf16)
        return take(self, *args, **options)

    monkeypatch.setattr(RefineStepper, "step", noted)
    refine(tmp_path / "tiny", [*SMALL, *LENIENT])
    assert formats == [precision == "bf16"] * 6


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_stopped_stage_ends_as_if_it_had_not_been(run, tmp_path, monkeypatch, stop_after):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    refine(run, [*SMALL, *LENIENT])
    monkeypatch.setattr(RefineStepper, "step", _stopping(RefineStepper.step, after=stop_after))
    assert refine(other, [*SMALL, *LENIENT]).stopped
    monkeypatch.undo()
    assert not refine(other, [*SMALL, *LENIENT]).stopped
    files = [weights_of(folder / "refine") for folder in (run, other)]
    for name in files[0]:
        if name.endswith(".safetensors"):
            assert files[0][name] == files[1][name], name
    assert rows(run, "refine") == rows(other, "refine")


def test_harm_goes_back_with_half_the_adversary_and_then_ends(run, monkeypatch):
    found = iter([Harm(0.1, 0.0, 1.0), Harm(9.0, 0.0, 1.0), Harm(0.2, 0.0, 1.0), Harm(0, 0, 1)])
    monkeypatch.setattr(module, "find_harm", lambda *args: next(found))
    result = refine(run, SMALL)
    assert result.weakened == 1
    (alarm,) = rows(run, "alarm")
    assert (alarm["images"], alarm["from_images"], alarm["adversary"]) == (8, 16, 0.5)
    assert "9.00 dB" in alarm["reason"]
    assert rows(run, "refine")[-1]["adversary"] == 0.5


def test_harm_from_the_start_begins_anew(run, monkeypatch):
    found = iter([Harm(9.0, 0.0, 1.0), *[Harm(0.1, 0.0, 1.0)] * 3])
    monkeypatch.setattr(module, "find_harm", lambda *args: next(found))
    result = refine(run, SMALL)
    assert (result.weakened, result.images) == (1, 24)
    assert rows(run, "alarm")[0]["images"] == 0
    assert {row["adversary"] for row in rows(run, "refine")} == {0.5}


def test_harm_that_stays_ends_the_stage_and_keeps_what_was_harmless(run, monkeypatch):
    calls = []

    def harmful(*args):
        calls.append(1)
        return Harm(0.1 if len(calls) == 1 else 9.0, 0.0, 1.0)

    monkeypatch.setattr(module, "find_harm", harmful)
    with pytest.raises(TrainingError, match=r"lost 9\.00 dB"):
        refine(run, SMALL)
    assert len(rows(run, "alarm")) == 2
    assert checkpoint.newest_complete(run / "refine").checkpoint.name == "step-2"
    assert hvae.load(run).refiner is not None


def test_what_is_harm():
    limits = HarmConfig()
    assert Harm(0.5, 3.0, 0.9).beyond(limits) is None
    assert "1.50 dB" in Harm(1.5, 3.0, 0.9).beyond(limits)
    assert "9.0 levels" in Harm(0.5, 9.0, 0.9).beyond(limits)
    assert "recall fell to 50%" in Harm(0.5, 3.0, 0.5).beyond(limits)
    assert Harm(float("nan"), 0.0, 1.0).beyond(limits) is not None


def test_harm_is_measured_on_the_same_latents(run):
    refine(run, [*SMALL, *LENIENT, OUTPUT])
    model = hvae.load(run)
    test = Chosen(open_source(DataConfig(source="shapes", size=8, channels=1), "test"), 16, seed=0)
    harm = find_harm(model, test, 3)
    originals = torch.stack(test.take(0, 16))
    means = [
        reconstruct(model, originals, seed=3, refined=refined).double().mean()
        for refined in (False, True)
    ]
    assert harm.colour == pytest.approx(abs(means[1] - means[0]).item())
    model.refiner.output.out.bias.data.fill_(2.0)  # everything white
    worse = find_harm(model, test, 3)
    assert worse.psnr > harm.psnr + 1
    assert worse.colour > harm.colour + 8


def test_a_refiner_of_other_weights_is_left_out(run, tiny):
    refine(run, [*SMALL, *LENIENT])
    fit(tiny("train.images=40"))
    with pytest.warns(UserWarning, match="other weights"):
        assert hvae.load(run).refiner is None
    with pytest.raises(UserError, match="other weights"):
        refine(run, [*SMALL, *LENIENT])


def test_wrong_use(run, tmp_path):
    with pytest.raises(UserError, match=r"train\.lr"):
        refine(run, ["train.lr=1"])
    with pytest.raises(UserError, match="no such folder"):
        refine(tmp_path / "nowhere")
    refine(run, [*SMALL, *LENIENT])
    with pytest.raises(UserError, match=r"refine\.lr=0\.0001 \(now 0\.1\)"):
        refine(run, [*SMALL, *LENIENT, "refine.lr=0.1"])
    assert refine(run, [*SMALL, *LENIENT, "refine.images=32"]).images == 32


def test_two_stages_on_one_run_are_refused(run, held_elsewhere):
    (run / "refine").mkdir()
    held = held_elsewhere(run / "refine" / ".lock")
    with held, pytest.raises(UserError, match="another process refines this run"):
        refine(run, SMALL)


def test_a_perceptual_loss_by_an_installed_extractor(run):
    result = refine(run, [*SMALL, *LENIENT, "refine.images=8", OUTPUT, "refine.perceptual=lite0"])
    assert result.images == 8
    (row,) = rows(run, "refine")
    assert row["perceptual"] > 0
    assert row["grad_norm_perceptual"] > 0


def test_a_discriminator_that_looks_through_another_network_resumes_exactly(run, tmp_path):
    other, settings = tmp_path / "other", [*SMALL, *LENIENT, "refine.discriminator.features=lite2"]
    shutil.copytree(run, other)
    refine(run, settings)
    folder = checkpoint.newest_complete(run / "refine").checkpoint
    heads = [n for n in load_file(folder / "discriminator.safetensors") if "through" in n]
    assert len(heads) == 18  # of 3 convolutions for 3 maps, and nothing of the network itself
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RefineStepper, "step", _stopping(RefineStepper.step, after=3))
        assert refine(other, settings).stopped
    assert not refine(other, settings).stopped
    assert weights_of(other / "refine") == weights_of(run / "refine")


@pytest.mark.parametrize("key", ["perceptual", "discriminator.features"])
def test_networks_without_maps_are_refused(run, key):
    with pytest.raises(UserError, match="wanted inception, lite0"):
        refine(run, [*SMALL, f"refine.{key}=nothing"])


@pytest.mark.parametrize(("channels", "size"), [(2, (8, 8)), (1, (8,)), (3, (8, 8, 8))])
def test_networks_for_images_see_nothing_else(channels, size):
    ladder = {"encoder": "8x1", "decoder": "8x1", "width": 8}
    model = HVAE(ModelConfig(size=size, channels=channels, **ladder))
    with pytest.raises(UserError, match="lite0 sees grey and colour images, the model makes"):
        module._maps("perceptual", "lite0", model)


def test_several_processes_are_refused(run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="without torchrun"):
        refine(run, SMALL)


def test_a_discriminator_that_runs_away_ends_the_stage(run):
    with pytest.raises(TrainingError, match=r"run away.*refine\.lr_discriminator"):
        refine(run, [*SMALL, *LENIENT, "refine.lr_discriminator=20"])
    assert [row["kind"] for row in rows(run, "alarm")] == ["alarm", "alarm"]
