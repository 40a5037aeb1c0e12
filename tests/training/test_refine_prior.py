"""The stage that trains prior and ladder along: a run of its own, resumed exactly, on a budget."""

import hashlib
import json
import os
import shutil
import signal

import pytest
import torch

import hvae
from hvae import checkpoint
from hvae.errors import UserError
from hvae.training import fit
from hvae.training.refine import refine
from hvae.training.refine_prior import PriorStepper

SMALL = (
    "refine.images=24", "refine.batch=4", "refine.log_every=8", "refine.checkpoint_every=8",
    "refine.sample_every=16", "refine.harm.images=16", "refine.harm.psnr=100",
    "refine.harm.colour=300", "refine.harm.recall=0",
)  # fmt: skip
PRIOR = (*SMALL, "refine.unfreeze=prior", "refine.prior.budget=10")


@pytest.fixture
def run(tiny, tmp_path):
    """A run of seconds, refined."""
    fit(tiny())
    refine(tmp_path / "tiny", SMALL)
    return tmp_path / "tiny"


def files(folder):
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.endswith("lock")
    }


def test_it_makes_a_run_of_its_own_and_leaves_the_other_alone(run):
    before = files(run)
    result = refine(run, PRIOR)
    assert result.images == 24
    assert result.ended is None
    assert {n: h for n, h in files(run).items() if not n.startswith("prior/")} == before
    old, new = hvae.load(run), hvae.load(run / "prior")
    moved = [n for n, p in new.named_parameters() if not torch.equal(p, old.get_parameter(n))]
    assert moved
    assert all(name.startswith("decoder.") and ".posterior." not in name for name in moved)
    assert not torch.equal(new.sample(4), new.sample(4, refined=False, output="mean"))
    rows = [json.loads(line) for line in (run / "prior" / "metrics.jsonl").read_text().splitlines()]
    assert {row["kind"] for row in rows} == {"refine", "harm", "budget"}
    assert rows[0]["bits_per_dim"] > 0


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_stopped_stage_ends_as_if_it_had_not_been(run, tmp_path, monkeypatch, stop_after):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    refine(run, PRIOR)
    take = PriorStepper.step

    def step_and_stop(self, *args, **options):
        report = take(self, *args, **options)
        if self.steps == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return report

    monkeypatch.setattr(PriorStepper, "step", step_and_stop)
    assert refine(other, PRIOR).stopped
    monkeypatch.undo()
    assert not refine(other, PRIOR).stopped
    found = [files(folder / "prior") for folder in (run, other)]
    wanted = {name for name in found[0] if "step-6/" in name and name.endswith(".safetensors")}
    assert any(name.startswith("refine/") for name in wanted)
    for name in wanted:
        assert found[0][name] == found[1][name], name


def test_it_ends_where_the_budget_is_spent(run):
    result = refine(run, [*PRIOR, "refine.prior.budget=0", "refine.prior.lr=0.5"])
    assert result.images == 8
    assert "refine.prior.budget=0 allows" in result.ended
    assert checkpoint.newest_complete(run / "prior").checkpoint is None  # nothing was worth it


def test_without_a_refinement_it_is_refused(tiny, tmp_path):
    fit(tiny())
    with pytest.raises(UserError, match=r"refine it first, without refine\.unfreeze=prior"):
        refine(tmp_path / "tiny", PRIOR)


def test_the_adversary_moves_the_model_as_much_as_it_is_weighed(run):
    model = hvae.load(run)
    x = torch.randint(256, (4, *model.shape), dtype=torch.uint8)
    gradients = {}
    for weight in (0.0, 0.05, 0.1):
        stepper = PriorStepper(
            hvae.load(run),
            settings(f"refine.prior.adversarial={weight}", "refine.prior.ramp=0", run=run),
            seed=0,
        )
        stepper.optimizer.step = lambda: None
        stepper.step(x)
        parameter = stepper.trained["out_conv.weight"]
        gradients[weight] = parameter.grad.clone()
    first = gradients[0.05] - gradients[0.0]
    assert first.any()
    torch.testing.assert_close(gradients[0.1] - gradients[0.0], 2 * first, rtol=1e-3, atol=1e-7)


def settings(*overrides, run):
    from hvae.training.config_file import load_config

    return load_config(run / "config.yaml", [*SMALL, *overrides]).refine
