"""The verbs that read and write published checkpoints."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

FIXTURE = Path(__file__).parents[1] / "golden" / "vdvae_tiny.safetensors"
LAYOUT = (
    "32x1,32d2,16x1,16d2,8x1,8d2,4x1,4d4,1x1",
    "1x1,4m1,4x1,8m4,8x1,16m8,16x1,32m16,32x1",
)
CIFAR10 = ("model.likelihood.input_mean=120.63838", "model.likelihood.input_std=64.16736")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("published") / "tiny-model-ema.th"
    tensors = load_file(FIXTURE)
    torch.save({f"module.{k}": v for k, v in tensors.items() if k.startswith(("enc", "dec"))}, file)
    return file


def test_a_checkpoint_becomes_a_run_and_a_checkpoint_again(cli, checkpoint, tmp_path):
    run, out = tmp_path / "tiny", tmp_path / "out.th"
    imported = cli("import-vdvae", checkpoint, "-o", run, "--layout", *LAYOUT, *CIFAR10, "--json")
    assert imported.exit_code == 0, imported.stderr
    record = json.loads(imported.stdout)
    assert record["parameters"] == 108_084
    assert record["tensors"] == 317
    assert record["groups"] == 9
    exported = cli("export-vdvae", run, "-o", out)
    assert exported.stdout == f"{out}: 317 tensors, 108,084 numbers\n"
    original = torch.load(checkpoint, weights_only=True)
    again = torch.load(out, weights_only=True)
    assert {f"module.{name}" for name in again} == original.keys()
    assert all(torch.equal(again[name], original[f"module.{name}"]) for name in again)


def test_verbs_take_an_imported_run(cli, checkpoint, tmp_path):
    run = tmp_path / "tiny"
    values = (*CIFAR10, "model.likelihood.form=compat")
    cli("import-vdvae", checkpoint, "-o", run, "--layout", *LAYOUT, "--data", "emoji-32", *values)
    scored = cli("eval", run, "--images", "4", "--json")
    assert scored.exit_code == 0, scored.stderr
    record = json.loads(scored.stdout)
    assert record["likelihood_form"] == "compat"
    assert record["dataset"] == "emoji-32"
    assert record["protocol"].startswith("bits/dim of the uint8 values by the published VDVAE's")
    sheet = tmp_path / "samples.png"
    assert cli("sample", run, "-n", "4", "-o", sheet).exit_code == 0
    assert cli("reconstruct", run, "-n", "2", "-o", tmp_path / "pairs.png").exit_code == 0


def test_scaling_that_was_assumed_is_said(cli, checkpoint, tmp_path):
    result = cli("import-vdvae", checkpoint, "-o", tmp_path / "tiny", "--layout", *LAYOUT)
    assert "assuming mean 127.5 and std 127.5" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "cifar10"), "does not fit preset cifar10: it has 32 channels at the finest"),
        ((), "fits no preset"),
        (("--preset", "cifar10", "--layout", *LAYOUT), "wanted --preset or --layout, got both"),
        (("--layout", LAYOUT[0], "1x1,4q1"), '"4q1" at column 5: wanted R, RxN or RmS'),
        (("--layout", *LAYOUT, "model.widht=3"), 'did you mean "model.width"?'),
    ],
)
def test_what_does_not_fit_is_one_line(cli, checkpoint, tmp_path, arguments, message):
    run = tmp_path / "run"
    result = cli("import-vdvae", checkpoint, "-o", run, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not run.exists()


def test_a_model_of_another_family_is_not_exported(cli, run, tmp_path):
    out = tmp_path / "out.th"
    result = cli("export-vdvae", run, "-o", out)
    assert result.exit_code == 2
    assert "model.activation is silu, not gelu" in result.stderr
    assert not out.exists()
