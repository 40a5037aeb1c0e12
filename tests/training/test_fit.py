"""`fit`: what a run leaves, how it ends, and what the same command does again."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import hvae
from hvae import checkpoint
from hvae.errors import TrainingError, UserError
from hvae.training import Config, fit, step
from hvae.training.build import complete, sized
from hvae.training.run_folder import RunFolder
from hvae.training.step import Stepper


def rows(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def weights(run: Path) -> dict[str, torch.Tensor]:
    folder = checkpoint.latest_checkpoint(run)
    return {
        f"{stem}.{name}": tensor
        for stem in ("model", "ema", "optim")
        for name, tensor in load_file(folder / f"{stem}.safetensors").items()
    }


def test_a_run_leaves_a_score_a_log_sheets_and_a_checkpoint(tiny, tmp_path):
    result = fit(tiny())
    run = tmp_path / "tiny"
    assert (result.run, result.images, result.stopped) == (run, 30, False)
    assert (result.dataset, result.split, result.num_images) == ("shapes", "test", 300)
    assert result.importance_bits_per_dim is None
    files = {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()}
    checkpoints = {
        f"checkpoints/step-{n}/{name}"
        for n in (6, 8)
        for name in ("model.safetensors", "ema.safetensors", "optim.safetensors", "state.json")
    }
    sheets = {"samples/samples-final.png", "samples/reconstructions-final.png"}
    assert files == checkpoints | sheets | {".lock", "config.yaml", "metrics.jsonl", "latest"}

    assert [row["images"] for row in rows(run, "train")] == [4, 8, 12, 16, 20, 24, 28]
    assert [row["images"] for row in rows(run, "eval")] == [12, 24, 30]
    assert [row["num_images"] for row in rows(run, "eval")] == [8, 8, 300]
    assert rows(run, "eval")[-1]["elbo_bits_per_dim"] == result.bits_per_dim


def test_rows_say_how_training_goes(tiny, tmp_path):
    fit(tiny("train.log_every=12"))
    row = rows(tmp_path / "tiny", "train")[0]
    assert (row["step"], row["images"]) == (3, 12)
    assert len(row["kl_per_group"]) == 2
    assert row["kl"] == pytest.approx(sum(row["kl_per_group"]))
    bits = (row["nll"] + row["kl"]) / 64 / 0.6931471805599453
    assert row["bits_per_dim"] == pytest.approx(bits)
    assert {"objective", "grad_norm", "clip_norm", "skipped", "clipped", "skips"} <= row.keys()
    assert {"beta", "free_bits", "lr", "images_per_second", "memory_mib"} <= row.keys()


def test_rows_report_the_elbo_whatever_is_minimised(tiny, tmp_path):
    helps = ("beta=4.0", "kl_schedule=constant", "kl_share=true", "spectral=1.0")
    fit(tiny("train.images=12", *(f"train.objective.{text}" for text in helps)))
    for row in rows(tmp_path / "tiny", "train"):
        nats = row["nll"] + sum(row["kl_per_group"])
        assert row["bits_per_dim"] == pytest.approx(nats / 64 / 0.6931471805599453)
        assert row["objective"] > nats / 64
        assert row["spectral"] > 0


def test_a_run_with_a_spectral_penalty_saves_its_vectors(tiny, tmp_path):
    fit(tiny("train.images=8", "train.objective.spectral=1.0"))
    folder = checkpoint.latest_checkpoint(tmp_path / "tiny")
    assert len(load_file(folder / "spectral.safetensors")) == 4
    assert fit(tiny("train.images=12", "train.objective.spectral=1.0")).images == 12


def test_evaluations_tell_what_each_group_does_and_warn_of_a_collapse(tiny, tmp_path, capsys):
    fit(tiny("train.objective.beta=1e4", "train.objective.free_bits=0"))
    lists = ("active_units", "active_units_given_above", "latent_units", "mutual_information",
             "posterior_std_at_floor", "prior_std_at_floor", "std_large")  # fmt: skip
    for row in rows(tmp_path / "tiny", "eval"):
        assert all(len(row[name]) == 2 for name in lists)
        assert row["collapsed_groups"] == [
            group for group, kl in enumerate(row["kl_per_group"], 1) if kl < 0.01
        ]
    assert rows(tmp_path / "tiny", "eval")[-1]["collapsed_groups"] == [1, 2]
    warning = "warning: groups 1, 2 of 2 carry nothing (test KL under 0.01 nats per image)"
    assert warning in capsys.readouterr().err.splitlines()


def test_the_score_is_that_of_the_averaged_weights(tiny, tmp_path):
    result = fit(tiny())
    model = hvae.load(tmp_path / "tiny")
    source = hvae.data.open_source(tiny().data, "test")
    score = hvae.metrics.evaluate_likelihood(model, source, seed=0, batch=64)
    assert score.elbo_bits_per_dim == result.bits_per_dim


def test_a_run_reads_its_size_from_the_data(tiny, tmp_path):
    fit(tiny("data.size=[8,16]", "data.channels=3", "train.images=4"))
    config = hvae.load(tmp_path / "tiny").config
    assert (config.size, config.channels) == ((8, 16), 3)


def test_importance_samples_tighten_the_final_score(tiny):
    result = fit(tiny("eval.importance=8"))
    assert result.importance_bits_per_dim < result.bits_per_dim


def test_equal_runs_have_equal_weights_and_seeds_differ(tiny, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit(tiny("train.images=12", f"name={name}", f"seed={seed}"))
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["model.decoder.out_conv.weight"], c["model.decoder.out_conv.weight"])


def test_a_finished_run_is_not_trained_again(tiny, tmp_path, monkeypatch):
    first = fit(tiny())
    before = (tmp_path / "tiny" / "metrics.jsonl").read_bytes()
    monkeypatch.delattr(Stepper, "step")
    assert fit(tiny()) == first
    assert (tmp_path / "tiny" / "metrics.jsonl").read_bytes() == before


def test_a_longer_run_goes_on_from_a_finished_one(tiny, tmp_path):
    fit(tiny("train.images=16"))
    result = fit(tiny("train.images=24"))
    assert result.images == 24
    assert [row["images"] for row in rows(tmp_path / "tiny", "eval")] == [12, 16, 24]


def test_values_that_shape_the_run_may_not_change(tiny, tmp_path):
    fit(tiny("train.images=8"))
    with pytest.raises(UserError) as caught:
        fit(tiny("train.images=8", "train.lr=0.02", "data.batch=2", "model.widths={4: 8}"))
    assert str(caught.value) == (
        f"{tmp_path / 'tiny'}: this run was started with data.batch=4 (now 2); "
        "model.widths.4=None (now 8); train.lr=0.01 (now 0.02). "
        "Use the same values to resume it, or name=... for a new run"
    )


def test_lengths_and_intervals_may_change(tiny):
    fit(tiny("train.images=8"))
    changes = ("images=16", "keep_last=1", "log_every=5", "checkpoint_every=6", "eval_every=99")
    assert fit(tiny(*(f"train.{change}" for change in changes), "eval.images=4")).images == 16


def test_a_folder_in_use_is_refused(tiny, tmp_path):
    with RunFolder(tiny()).locked(), pytest.raises(UserError) as caught:
        fit(tiny())
    assert str(caught.value) == (
        f"{tmp_path / 'tiny'}: another process trains in this run folder; "
        "choose another one with name=..."
    )
    assert fit(tiny("train.images=4")).images == 4


def test_a_folder_that_cannot_be_written_is_named(tiny, tmp_path):
    (tmp_path / "tiny").write_text("a file")
    with pytest.raises(UserError, match=f"^{tmp_path}/tiny: cannot write the run folder: "):
        fit(tiny())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.source=nowhere", "no set or file is named nowhere"),
        ("model.encoder=8x1,4x1", "model.encoder"),
        ("model.widths.8=16", "model.widths"),
    ],
)
def test_wrong_use_writes_nothing(tiny, tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        fit(tiny(override))
    assert not (tmp_path / "tiny").exists()


def test_steps_that_are_never_finite_end_the_run_and_keep_its_checkpoint(
    tiny, tmp_path, monkeypatch
):
    fit(tiny("train.images=8"))
    before = weights(tmp_path / "tiny")
    monkeypatch.setattr(
        step.torch.nn.utils, "get_total_norm", lambda gradients: torch.tensor(float("nan"))
    )
    with pytest.raises(TrainingError, match="10 steps in a row"):
        fit(tiny("train.images=200", "train.checkpoint_every=1000"))
    after = weights(tmp_path / "tiny")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("stop_after", [1, 2, 5, 8], ids="step {}".format)
def test_a_stopped_run_ends_as_if_it_had_not_been(tiny, tmp_path, monkeypatch, stop_after):
    whole = fit(tiny("name=whole"))
    take = Stepper.step

    def step_and_stop(self: Stepper, x: torch.Tensor, **given: int) -> step.StepReport:
        report = take(self, x, **given)
        if self.steps == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return report

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", step_and_stop)
        stopped = fit(tiny())
    assert stopped.stopped
    assert stopped.bits_per_dim is None
    assert stopped.images == min(4 * stop_after, 30)
    resumed = fit(tiny())
    assert not resumed.stopped
    assert (resumed.bits_per_dim, resumed.num_images) == (whole.bits_per_dim, 300)
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "tiny")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    for kind in ("train", "eval"):
        images = [
            [row["images"] for row in rows(tmp_path / name, kind)] for name in ("whole", "tiny")
        ]
        assert images[0] == images[1]


@pytest.mark.parametrize(
    ("key", "asked", "found"), [("size", (16, 16), (28, 28)), ("channels", 3, 1)]
)
def test_a_model_of_another_size_than_the_data_is_refused_at_once(tmp_path, key, asked, found):
    model = {"encoder": "4x1", "decoder": "4x1", key: asked}
    values = {"runs_dir": str(tmp_path), "data": {"source": "fashion-mini"}, "model": model}
    with pytest.raises(UserError) as caught:
        fit(Config.model_validate(values))
    assert str(caught.value) == (
        f"model.{key} is {asked}, but that of fashion-mini is {found}; "
        f"leave model.{key} out, or set data.{key}"
    )
    assert not list(tmp_path.iterdir())


def test_data_is_opened_only_where_a_configuration_does_not_say_its_shape():
    def config(**model: object) -> Config:
        data = {"source": "no/such/folder", "size": 8, "channels": 1}
        layout = {"encoder": "8x1", "decoder": "8x1", **model}
        return Config.model_validate({"data": data, "model": layout})

    assert complete(config()) == sized(config())
    assert (sized(config()).model.size, sized(config()).model.channels) == ((8, 8), 1)
    of_classes = config(condition={"kind": "class"})
    assert sized(of_classes).model.size == (8, 8)
    with pytest.raises(UserError, match="no/such/folder"):
        complete(of_classes)
