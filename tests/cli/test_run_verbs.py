"""The verbs that use a trained run: sample, reconstruct, eval."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hvae import checkpoint
from hvae.models import HVAE, ModelConfig
from tests.cli.conftest import Cli


def array(cli: Cli, run: Path, out: Path, *options: str) -> np.ndarray:
    result = cli("sample", run, "-o", out, *options)
    assert result.exit_code == 0, result.stderr
    return np.load(out)


def test_samples_in_two_halves_equal_the_whole(cli: Cli, run: Path, tmp_path: Path) -> None:
    whole = array(cli, run, tmp_path / "whole.npy", "-n", "40", "--seed", "3")
    first = array(cli, run, tmp_path / "a.npy", "-n", "20", "--seed", "3")
    second = array(cli, run, tmp_path / "b.npy", "-n", "20", "--seed", "3", "--first-index", "20")
    assert (whole.shape, whole.dtype) == ((40, 1, 28, 28), np.uint8)
    assert np.array_equal(whole, np.concatenate([first, second]))


def test_seed_temperature_and_output_change_samples(cli: Cli, run: Path, tmp_path: Path) -> None:
    plain = array(cli, run, tmp_path / "plain.npy", "-n", "4")
    for option in (["--seed", "1"], ["--temperature", "0.5"], ["--output", "mean"]):
        assert not np.array_equal(plain, array(cli, run, tmp_path / "o.npy", "-n", "4", *option))


def test_samples_become_a_sheet_and_a_record(cli: Cli, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "samples.png"
    result = cli("sample", run, "-n", "9", "-o", out, "--json")
    record = json.loads(result.stdout)
    assert record["out"] == str(out)
    assert (record["num_images"], record["temperature"], record["seed"]) == (9, 1.0, 0)
    assert len(record["checkpoint_sha256"]) == 64
    with Image.open(out) as sheet:
        assert min(sheet.size) >= 3 * 28


def test_reconstructions_stand_beside_their_originals(cli: Cli, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.png"
    result = cli("reconstruct", run, "-n", "8", "-o", out, "--mode", "mean", "--groups", "1")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{out}: 8 images of few-clothes test and reconstructions\n"
    with Image.open(out) as sheet:
        width, height = sheet.size
    assert width == height


def test_other_data_is_brought_to_the_size_of_the_model(
    cli: Cli, run: Path, tmp_path: Path
) -> None:
    result = cli(
        "reconstruct", run, "-n", "2", "-o", tmp_path / "e.png", "--data", "emoji-32", "--json"
    )
    assert json.loads(result.stdout)["dataset"] == "emoji-32"


def test_a_score_is_a_record_of_everything_it_depends_on(cli: Cli, run: Path) -> None:
    result = cli("eval", run, "--images", "50", "--importance", "4", "--batch", "16", "--json")
    record = json.loads(result.stdout)
    assert record["importance_bits_per_dim"] < record["elbo_bits_per_dim"]
    assert record["estimators"] == ["ELBO", "IWAE-4"]
    assert (record["dataset"], record["split"]) == ("few-clothes", "test")
    assert (record["num_images"], record["importance"], record["seed"]) == (50, 4, 0)
    assert len(record["kl_per_group"]) == 2
    assert math.isclose(sum(record["kl_per_group"]), record["kl"])
    assert len(record["sha256"]) == len(record["checkpoint_sha256"]) == 64
    assert "beta 1" in record["protocol"]


def test_the_score_of_training_is_the_score_of_eval(
    cli: Cli, run: Path, trained: tuple[Path, object]
) -> None:
    state = checkpoint.read_state(checkpoint.find_checkpoint(run))
    record = json.loads(cli("eval", run, "--json").stdout)
    assert record["elbo_bits_per_dim"] == pytest.approx(state["result"]["bits_per_dim"], rel=1e-6)


def test_the_kl_is_reported_by_group_and_by_level(cli: Cli, run: Path) -> None:
    record = json.loads(cli("eval", run, "--images", "20", "--json").stdout)
    assert [(row["group"], row["resolution"]) for row in record["groups"]] == [(1, 7), (2, 14)]
    assert [row["latent"] for row in record["groups"]] == [[2, 7, 7], [2, 14, 14]]
    assert [row["kl"] for row in record["groups"]] == record["kl_per_group"]
    assert [row["shape"] for row in record["levels"]] == [[7, 7], [14, 14]]
    for rows in (record["groups"], record["levels"]):
        assert sum(row["kl"] for row in rows) == pytest.approx(record["kl"])
        assert sum(row["kl_share"] for row in rows) == pytest.approx(1)
        bits = record["kl"] / (math.log(2) * record["num_dims"])
        assert sum(row["kl_bits_per_dim"] for row in rows) == pytest.approx(bits)


@pytest.mark.parametrize(
    ("kind", "bits", "protocol"),
    [
        ("bernoulli", None, "bits/dim of binary values, a grey one counted as the probability"),
        ("gaussian", 8, "bits/dim of a density under uniform dequantisation, an upper bound on"),
    ],
)
def test_a_run_says_what_its_likelihood_measures(
    cli: Cli, config: Path, tmp_path: Path, kind: str, bits: int | None, protocol: str
) -> None:
    of_kind = (f"model.likelihood.kind={kind}", "train.images=50", f"runs_dir={tmp_path}")
    refused = cli("train", config, *of_kind)
    assert refused.exit_code == 2
    assert f"mixtures does not apply to {kind}" in refused.stderr
    trained = cli("train", config, *of_kind, "model.likelihood.mixtures=null")
    assert trained.exit_code == 0, trained.stderr
    (folder,) = (path.parent for path in tmp_path.glob("*/config.yaml"))
    record = json.loads(cli("eval", folder, "--images", "8", "--json").stdout)
    assert (record["likelihood_kind"], record["likelihood_bits"]) == (kind, bits)
    assert record["likelihood_form"] is None
    assert record["protocol"].startswith(protocol)
    assert protocol in cli("eval", folder, "--images", "8").stdout


def test_the_score_for_people_has_a_line_per_group(cli: Cli, run: Path) -> None:
    result = cli("eval", run, "--images", "20", "--split", "train")
    assert result.stdout.startswith("ELBO ")
    assert "few-clothes train, 20 images" in result.stdout
    assert [line.split()[:2] for line in result.stdout.splitlines()[-2:]] == [
        ["1", "2x7x7"],
        ["2", "2x14x14"],
    ]
    assert "images scored: 20 of 20" in result.stderr


@pytest.mark.parametrize(
    "verb", [["sample", "-o", "x.png"], ["reconstruct", "-o", "x.png"], ["eval"]]
)
def test_a_missing_run_is_named(cli: Cli, tmp_path: Path, verb: list[str]) -> None:
    result = cli(*verb, tmp_path / "nothing")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"hvae: {tmp_path / 'nothing'}: no such folder; wanted a run")
    assert result.stderr.count("\n") == 1


def test_weights_alone_have_no_data_of_their_own(cli: Cli, run: Path, tmp_path: Path) -> None:
    folder = checkpoint.find_checkpoint(run)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes((folder / "ema.safetensors").read_bytes())
    settings = checkpoint.read_state(folder)["config"]["model"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    refused = cli("eval", weights)
    assert refused.exit_code == 2
    assert "give --data" in refused.stderr
    options = ("--data", "fashion-mini", "--images", "20", "--json")
    record = json.loads(cli("eval", weights, *options).stdout)
    of_run = json.loads(cli("eval", run, *options).stdout)
    assert record["elbo_bits_per_dim"] == of_run["elbo_bits_per_dim"]
    assert record["checkpoint_sha256"] == of_run["checkpoint_sha256"]


@pytest.mark.parametrize(
    ("verb", "out"), [("sample", "x.jpg"), ("reconstruct", "x.npy"), ("sample", "x")]
)
def test_other_kinds_of_files_are_refused_before_any_work(cli: Cli, verb: str, out: str) -> None:
    result = cli(verb, "missing run", "-o", out)
    assert result.exit_code == 2
    assert result.stderr.startswith("hvae: --out: wanted a .png")


def test_a_file_that_cannot_be_written_is_named(cli: Cli, run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = cli("sample", run, "-n", "1", "-o", tmp_path / "file" / "x.png")
    assert result.exit_code == 2
    assert "cannot write" in result.stderr


def test_a_class_is_asked_for_by_name(cli: Cli, conditional_run: Path, tmp_path: Path) -> None:
    options = ("-n", "12", "--seed", "2")
    boots = array(cli, conditional_run, tmp_path / "a.npy", "--cond", "class=ankle-boot", *options)
    number = array(cli, conditional_run, tmp_path / "b.npy", "--cond", "class=9", *options)
    plain = array(cli, conditional_run, tmp_path / "c.npy", *options)
    assert np.array_equal(boots, number)
    assert not np.array_equal(boots, plain)
    for guidance, expected in (("1", boots), ("0", plain)):
        found = array(
            cli, conditional_run, tmp_path / "d.npy", "--cond", "class=ankle-boot", *options,
            "--guidance", guidance,
        )  # fmt: skip
        assert np.array_equal(found, expected)
    for option in (["--guidance", "2"], ["--guidance-std", "2"]):
        found = array(
            cli, conditional_run, tmp_path / "e.npy", "--cond", "class=9", *options, *option
        )
        assert not np.array_equal(found, boots)


def test_a_sheet_of_all_classes_has_a_column_each(
    cli: Cli, conditional_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "classes.png"
    result = cli(
        "sample", conditional_run, "-n", "20", "-o", out, "--cond", "class=all", "--json",
        "--guidance", "1.5", "--guidance-std", "1",
    )  # fmt: skip
    record = json.loads(result.stdout)
    assert (record["cond"], record["guidance"]) == ("class=all", [1.5, 1.0])
    with Image.open(out) as sheet:
        assert sheet.size == (10 * 30 - 2, 2 * 30 - 2)
    everything = array(
        cli, conditional_run, tmp_path / "all.npy", "-n", "20", "--cond", "class=all"
    )
    one = array(
        cli, conditional_run, tmp_path / "one.npy", "-n", "1", "--cond", "class=sandal",
        "--first-index", "15",
    )  # fmt: skip
    assert np.array_equal(everything[15:16], one)


def test_samples_may_take_the_conditions_of_the_data(
    cli: Cli, conditional_run: Path, tmp_path: Path
) -> None:
    test = array(cli, conditional_run, tmp_path / "a.npy", "-n", "2", "--cond", "data=test")
    for index, name in enumerate(("ankle-boot", "pullover")):  # the first two test images
        one = array(
            cli, conditional_run, tmp_path / "b.npy", "-n", "1", "--cond", f"class={name}",
            "--first-index", str(index),
        )  # fmt: skip
        assert np.array_equal(test[index : index + 1], one)


def test_a_conditional_model_is_scored_and_shown_under_its_conditions(
    cli: Cli, conditional_run: Path, tmp_path: Path
) -> None:
    record = json.loads(cli("eval", conditional_run, "--images", "50", "--json").stdout)
    assert record["condition"] == "class"
    assert record["protocol"].endswith("; given the class of each image, as the data has it")
    out = tmp_path / "pairs.png"
    assert cli("reconstruct", conditional_run, "-n", "4", "-o", out).exit_code == 0
    refused = cli("eval", conditional_run, "--data", "emoji-32")
    assert refused.exit_code == 2
    assert "emoji-32 (test) has no labels" in refused.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cond", "class=ankel-boot"], "no class ankel-boot; did you mean ankle-boot?"),
        (["--cond", "ankle-boot"], "--cond: wanted class=... or data=test, got ankle-boot"),
        (["--cond", "vector=1"], "--cond: wanted class=... or data=test, got vector=1"),
        (["--cond", "data=all"], "--cond: wanted data=train or data=test, got data=all"),
        (["--guidance", "2"], "guidance needs a condition to go toward; give cond"),
    ],
)
def test_conditions_that_are_not_understood_take_one_line(
    cli: Cli, conditional_run: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    result = cli("sample", conditional_run, "-o", tmp_path / "x.png", *options)
    assert (result.exit_code, result.stderr) == (2, f"hvae: {message}\n")


def test_a_model_without_a_condition_says_so(cli: Cli, run: Path, tmp_path: Path) -> None:
    result = cli("sample", run, "-o", tmp_path / "x.png", "--cond", "class=bag")
    assert result.exit_code == 2
    assert "--cond: this model takes no condition; it was trained without" in result.stderr


@pytest.mark.parametrize("kind", ["vector", "image"])
def test_vectors_and_images_are_given_by_value_and_by_file(
    cli: Cli, tmp_path: Path, kind: str
) -> None:
    shape = (2,) if kind == "vector" else (1, 4, 4)
    settings = {
        "size": (8, 8), "channels": 1, "encoder": "8x1", "decoder": "8x1", "width": 8,
        "condition": {"kind": kind, "shape": shape},
    }  # fmt: skip
    model = HVAE(ModelConfig.model_validate(settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(settings))
    picture, values = tmp_path / "picture.png", tmp_path / "values.npy"
    Image.new("RGB", (12, 12), (200, 200, 200)).save(picture)
    grey = np.full((1, 4, 4), 200, np.uint8)
    np.save(values, grey)
    cond = torch.tensor([0.5, -1.0]) if kind == "vector" else torch.from_numpy(grey)
    wanted = model.eval().sample(3, cond=cond).numpy()
    texts = ["vector=0.5,-1"] if kind == "vector" else [f"image={picture}", f"image={values}"]
    for text in texts:
        found = array(
            cli, tmp_path / "model.safetensors", tmp_path / "o.npy", "-n", "3", "--cond", text
        )
        assert np.array_equal(found, wanted)
    wrong = "vector=1,2,3" if kind == "vector" else f"image={tmp_path / 'none.npy'}"
    refused = cli(
        "sample", tmp_path / "model.safetensors", "-o", tmp_path / "x.png", "--cond", wrong
    )
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "--cond: " in refused.stderr
