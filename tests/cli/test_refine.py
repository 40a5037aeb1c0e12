"""`hvae refine`, and the verbs that show what it makes."""

import json
import shutil

import numpy as np
import pytest

SMALL = (
    "refine.images=16", "refine.batch=8", "refine.checkpoint_every=8", "refine.harm.images=16",
    "refine.harm.psnr=100", "refine.harm.colour=300", "refine.harm.recall=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def refined(cli, trained, tmp_path_factory):
    """A copy of the tiny run, refined."""
    run = tmp_path_factory.mktemp("refined") / "run"
    shutil.copytree(trained[0], run)
    result = cli("refine", run, *SMALL, "refine.lr=0.02", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["images"] == 16
    return run


def drawn(cli, run, folder, *options):
    file = folder / "x.npy"
    result = cli("sample", run, "-o", file, "-n", "4", "--json", *options)
    assert result.exit_code == 0, result.stderr
    return np.load(file), json.loads(result.stdout)


def test_samples_are_refined_unless_told_otherwise(cli, refined, trained, tmp_path):
    usual, record = drawn(cli, refined, tmp_path)
    assert record["refined"] is True
    plain, record = drawn(cli, refined, tmp_path, "--unrefined", "--output", "mean")
    assert record["refined"] is False
    assert (usual != plain).any()
    before, _ = drawn(cli, trained[0], tmp_path, "--output", "mean")
    assert (plain == before).all()
    asked, _ = drawn(cli, refined, tmp_path, "--refined")
    assert (asked == usual).all()


def test_reconstructions_too(cli, refined, tmp_path):
    for option, wanted in (("--refined", True), ("--unrefined", False)):
        out = tmp_path / "pairs.png"
        result = cli("reconstruct", refined, "-o", out, "-n", "4", option, "--json")
        assert json.loads(result.stdout)["refined"] is wanted


def test_the_likelihood_model_is_what_is_scored(cli, refined, trained):
    scores = [
        json.loads(cli("eval", run, "--images", "20", "--json").stdout)
        for run in (refined, trained[0])
    ]
    assert scores[0]["elbo_bits_per_dim"] == scores[1]["elbo_bits_per_dim"]


def test_a_run_without_a_refiner_has_nothing_to_show(cli, trained, tmp_path):
    result = cli("sample", trained[0], "-o", tmp_path / "x.npy", "--refined")
    assert result.exit_code == 2
    assert "hvae refine" in result.stderr


def test_the_same_command_finds_it_done(cli, refined):
    result = cli("refine", refined, *SMALL, "refine.lr=0.02")
    assert result.exit_code == 0
    assert "16 images" in result.stdout
    assert "dB" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train.lr=1"], "train.lr"),
        (["refine.gama=1"], "gamma"),
        (["refine.lr=warm"], "refine.lr"),
    ],
)
def test_wrong_use_is_one_line(cli, trained, arguments, words):
    result = cli("refine", trained[0], *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (trained[0] / "refine" / "checkpoints").exists()
