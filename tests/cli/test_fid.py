"""`hvae fid` and `hvae fid-stats`, with an extractor that takes no weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import hvae
from hvae.inference import reconstruct
from hvae.metrics import psnr, ssim

EXTRACTOR = """
import torch
import torch.nn.functional as F


class Pooled:
    dim = 12
    sha256 = "pooled-1"

    def __call__(self, images):
        return F.adaptive_avg_pool2d(images.float(), 2).flatten(1) / 255


class Convolved(torch.nn.Module):
    dim = 6

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 7), torch.nn.Conv2d(16, 6, 5))

    def forward(self, images):
        return self.layers(images / 255).relu().mean((2, 3))


class Broken:
    dim = 12

    def __call__(self, images):
        features = F.adaptive_avg_pool2d(images.float(), 2).flatten(1)
        features[images.flatten(1).amax(1) == 0] = float("nan")
        return features
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with an extractor, and two folders of images."""
    folder = tmp_path_factory.mktemp("fid")
    (folder / "little.py").write_text(EXTRACTOR)
    rng = np.random.default_rng(0)
    for name, brightest in (("bright", 256), ("dark", 128)):
        (folder / name).mkdir()
        for index in range(70):
            pixels = rng.integers(0, brightest, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:03}.png")
    return folder


@pytest.fixture
def fid(cli, place, monkeypatch):
    """Calls `hvae fid` in the working directory and returns its record."""
    monkeypatch.chdir(place)

    def call(*arguments, features="little:Pooled"):
        result = cli("fid", *arguments, "--features", features, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return call


@pytest.fixture
def refused(cli, place, monkeypatch):
    """Calls a verb in the working directory and returns its one line of refusal."""
    monkeypatch.chdir(place)

    def call(*arguments, features="little:Pooled"):
        result = cli(*arguments, "--features", features)
        assert result.exit_code == 2, result.stdout
        lines = [line for line in result.stderr.splitlines() if line.startswith("hvae: ")]
        assert len(lines) == 1
        assert result.stdout == ""
        return lines[0]

    return call


def test_two_folders(fid):
    record = fid("bright", "--real", "dark")
    assert record["metric"] == "FD-little:Pooled"
    # Means differ by a quarter in each of 12 features: the rest is small and noisy.
    assert record["value"] == pytest.approx(12 * 0.25**2, rel=0.05)
    assert (record["results"][0]["n_fake"], record["n_real"]) == (70, 70)
    assert fid("bright", "--real", "bright")["value"] == pytest.approx(0, abs=1e-9)


def test_the_record_says_what_the_number_depends_on(fid, place):
    record = fid("bright", "--real", "dark", "--seed", "3")
    assert record["features_sha256"] == "pooled-1"
    assert record["protocol"] == "own"
    assert record["seed"] == 3
    assert record["world_size"] == 1
    assert (record["real"]["data"], record["real"]["split"]) == ("dark", "all")
    content = record["real"]["content_hash"]
    assert fid("bright", "--real", "dark")["real"]["content_hash"] == content
    assert fid("bright", "--real", "dark", "--num-real", "69")["real"]["content_hash"] != content
    assert {"hvae", "torch", "device", "dtype", "seconds", "threads"} <= record.keys()


def test_all_metrics_of_one_pass(fid):
    record = fid(
        "bright", "--real", "dark", "--metrics", "fid,kid,prdc,sharpness", "--infinity",
        "--bootstrap", "5",
    )  # fmt: skip
    scores = {row["metric"]: row for row in record["results"]}
    name = "little:Pooled"
    assert list(scores) == [
        f"FD-{name}", f"FD-{name}-infinity", f"KD-{name}", "precision", "recall", "density",
        "coverage", "spectrum_distance", "gradient_ratio", "laplacian_ratio",
    ]  # fmt: skip
    assert scores[f"FD-{name}"]["low"] < scores[f"FD-{name}"]["high"]
    assert scores[f"FD-{name}-infinity"]["stderr"] > 0
    assert scores["precision"]["value"] == 0
    assert scores["gradient_ratio"]["value"] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_batch_changes_no_bit(fid, trained, batch):
    arguments = (trained[0], "-n", "70", "--metrics", "fid,kid,sharpness")
    wanted = fid(*arguments, features="little:Convolved")
    found = fid(*arguments, "--batch", batch, features="little:Convolved")
    assert found["results"] == wanted["results"]


@pytest.mark.slow
def test_two_processes_give_the_same_bits(fid, place, trained):
    arguments = [
        str(trained[0]), "-n", "70", "--metrics", "fid,kid,prdc,sharpness", "--features",
        "little:Convolved", "--json",
    ]  # fmt: skip
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        [*torchrun, "--nproc-per-node=2", "-m", "hvae", "fid", *arguments],
        cwd=place, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)
    one = fid(*arguments[:-3], features="little:Convolved")
    assert two["world_size"] == 2
    assert two["results"] == one["results"]


def test_a_run_against_its_own_data(fid, trained):
    record = fid(trained[0], "-n", "40", "--temperature", "0.5,1.0")
    assert [row["temperature"] for row in record["results"]] == [0.5, 1.0]
    assert record["results"][0]["value"] != record["results"][1]["value"]
    assert record["real"]["data"] == "few-clothes"
    assert record["reference_is_train"] is False
    assert fid(trained[0], "-n", "40", "--split", "train")["reference_is_train"] is True
    assert len(record["a"]["checkpoint_sha256"]) == 64


def test_reconstructions(fid, trained, config):
    record = fid(trained[0], "--reconstructions")
    scores = {row["metric"]: row["value"] for row in record["results"]}
    model = hvae.load(trained[0])
    images = torch.from_numpy(np.load(config.parent / "few-clothes.npz")["test_images"])
    made = reconstruct(model, images)
    assert scores["psnr"] == pytest.approx(psnr(made, images).mean().item(), rel=1e-3)
    assert scores["ssim"] == pytest.approx(ssim(made, images).mean().item(), rel=1e-2)
    assert scores["FD-little:Pooled"] > 0


def test_a_conditional_run(fid, conditional_run):
    boots = fid(conditional_run, "-n", "40", "--cond", "class=ankle-boot", "--num-real", "100")
    bags = fid(conditional_run, "-n", "40", "--cond", "class=bag", "--num-real", "100")
    assert boots["value"] != bags["value"]
    assert boots["cond"] == "class=ankle-boot"
    made = fid(conditional_run, "--reconstructions", "--num-real", "40")
    assert made["results"][-1]["metric"] == "ssim"


def test_statistics_stand_for_the_images(cli, fid, refused, place):
    assert cli(
        "fid-stats", "dark", "-o", "dark.safetensors", "--features", "little:Pooled"
    ).exit_code == 0  # fmt: skip
    direct, stored = fid("bright", "--real", "dark"), fid("bright", "--real", "dark.safetensors")
    assert stored["value"] == direct["value"]
    assert stored["n_real"] == 70
    assert stored["real"]["content_hash"] == direct["real"]["content_hash"]
    both = fid("dark.safetensors", "--real", "dark.safetensors")
    assert both["value"] == pytest.approx(0, abs=1e-9)
    with safe_open("dark.safetensors", "pt") as file:
        assert file.metadata()["features"] == "little:Pooled"
    assert "--metrics fid" in refused("fid", "bright", "--real", "dark.safetensors",
                                      "--metrics", "fid,kid")  # fmt: skip
    assert "made with" in refused(
        "fid", "bright", "--real", "dark.safetensors", features="little:Broken"
    )
    assert "12 features" in refused(
        "fid", "bright", "--real", "dark.safetensors", features="little:Convolved"
    )


def test_statistics_of_other_programs(fid, place):
    pixels = np.stack([np.asarray(Image.open(f)) for f in sorted((place / "dark").iterdir())])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    features = torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1).double().numpy() / 255
    np.savez("other.npz", mu=features.mean(0), sigma=np.cov(features.T))
    record = fid("bright", "--real", "other.npz")
    assert record["value"] == pytest.approx(fid("bright", "--real", "dark")["value"], rel=1e-5)
    assert record["n_real"] is None
    assert record["real"]["provenance"] == "external"


def test_differences_of_the_files_are_told(fid, place):
    folder = place / "mixed"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for index in range(20):
        size = 8 + index % 2
        pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.jpg")
    Image.fromarray(pixels[..., 0]).save(folder / "grey.jpg")
    record = fid("mixed", "--real", "bright", "--size", "8")
    assert not any("sizes" in note for note in record["warnings"])
    text = " ".join(fid("mixed", "--real", "bright", features="lite0")["warnings"])
    for word in ("several sizes: 9x9 x 11, 8x8 x 10", "1 grey images", "JPEG", "rank-deficient"):
        assert word in text


def test_images_of_several_sizes_need_one_that_resizes(refused, place):
    folder = place / "sizes"
    folder.mkdir()
    for size in (8, 9):
        Image.new("RGB", (size, size)).save(folder / f"{size}.png")
    assert "does not resize" in refused("fid", "sizes", "--real", "bright")


def test_features_that_are_not_finite_name_the_image(refused, place):
    folder = place / "black"
    folder.mkdir()
    for index in range(40):
        Image.new("RGB", (9, 9), (0, 0, 0) if index > 36 else (9, 9, 9)).save(
            folder / f"{index:02}.png"
        )
    message = refused("fid", "black", "--real", "bright", features="little:Broken")
    assert "3 of 40" in message
    assert "37.png" in message


def test_bad_files_stop_or_are_left_out(cli, fid, refused, place):
    folder = place / "bad"
    folder.mkdir()
    for index in range(3):
        Image.new("RGB", (9, 9), (index, 0, 0)).save(folder / f"{index}.png")
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:40])
    assert "broken.png" in refused("fid", "bad", "--real", "bright")
    with pytest.warns(UserWarning, match=r"broken\.png"):
        assert fid("bad", "--real", "bright", "--skip-bad")["results"][0]["n_fake"] == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "--real", "dark"], "nowhere"),
        (["bright"], "--real"),
        (["bright", "--real", "dark", "--metrics", "fid,lpips"], "lpips"),
        (["bright", "--real", "dark", "--num", "71"], "70 images, not 71"),
        (["bright", "--real", "dark", "--temperature", "0.7,1"], "--temperature"),
        (["bright", "--real", "dark", "--temperature", "warm"], "warm"),
        (["bright", "--real", "dark", "--bootstrap", "1"], "resamples"),
        (["bright", "--real", "dark", "--reconstructions"], "--reconstructions"),
        (["bright", "--real", "dark", "--weights", "w.pth"], "w.pth"),
        (["bright", "--real", "dark", "--protocol", "clean"], "protocol"),
    ],
)
def test_wrong_use(refused, arguments, words):
    assert words in refused("fid", *arguments)


def _tensors(**changes):
    tensors = {"mean": torch.zeros(12).double(), "cov": torch.eye(12).double()}
    return {name: value for name, value in {**tensors, **changes}.items() if value is not None}


HEADER = {
    "format": "hvae statistics 1", "features": "little:Pooled", "features_sha256": "pooled-1",
    "protocol": "own", "n": "100",
}  # fmt: skip


@pytest.mark.parametrize(
    ("tensors", "header", "words"),
    [
        (_tensors(mean=torch.full((12,), torch.nan).double()), {}, "not finite"),
        (_tensors(cov=torch.full((12, 12), torch.inf).double()), {}, "not finite"),
        (_tensors(mean=None), {}, "wanted mean, cov"),
        (_tensors(extra=torch.zeros(1)), {}, "extra"),
        (_tensors(mean=torch.zeros(13).double()), {}, "do not belong together"),
        (_tensors(mean=torch.zeros(12, 1).double()), {}, "do not belong together"),
        (_tensors(cov=torch.eye(12).int()), {}, "no floats"),
        (_tensors(cov=torch.ones(12, 12).triu().double()), {}, "not symmetric"),
        (_tensors(cov=-torch.eye(12).double()), {}, "negative"),
        (_tensors(chol=2 * torch.eye(12).double()), {}, "factor"),
        (_tensors(chol=torch.eye(11).double()), {}, "factor"),
        (_tensors(), {"n": "many"}, "n='many'"),
        (_tensors(), {"n": "-3"}, "n='-3'"),
        (_tensors(), {"n": "1" * 4000}, "n="),
        (_tensors(), {"features": "lite0"}, "lite0"),
        (_tensors(), {"features_sha256": "pooled-2"}, "pooled-2"),
        (_tensors(), {"protocol": "clean"}, "clean"),
        (_tensors(), {"format": "hvae statistics 9"}, "statistics 9"),
    ],
)
def test_statistics_that_are_none(refused, place, tensors, header, words):
    save_file(tensors, "bad.safetensors", {**HEADER, **header})
    assert words in refused("fid", "bright", "--real", "bad.safetensors")


def test_statistics_that_are_good_pass_the_same_door(fid, place):
    save_file(_tensors(), "good.safetensors", HEADER)
    assert fid("bright", "--real", "good.safetensors")["n_real"] == 100


def test_a_cut_file_of_statistics(refused, place):
    save_file(_tensors(), "whole.safetensors", HEADER)
    Path("cut.safetensors").write_bytes(Path("whole.safetensors").read_bytes()[:-100])
    assert "cut.safetensors" in refused("fid", "bright", "--real", "cut.safetensors")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"mu": np.zeros(12), "sigma": np.eye(13)}, "do not belong together"),
        ({"mu": np.zeros(12), "sigma": np.full((12, 12), np.nan)}, "not finite"),
        ({"mu": np.zeros(12, dtype=int), "sigma": np.eye(12)}, "int64"),
        ({"mu": np.array([None] * 12, dtype=object), "sigma": np.eye(12)}, "pickle"),
        ({"mu": np.zeros(7), "sigma": np.eye(7)}, "7 features"),
    ],
)
def test_arrays_that_are_no_statistics(refused, place, arrays, words):
    np.savez("bad.npz", **arrays)
    assert words in refused("fid", "bright", "--real", "bad.npz")


def test_statistics_are_written_whole_or_not_at_all(refused, place, monkeypatch):
    refused("fid-stats", "bright", "-o", "bright.npz")
    locked = place / "file"
    locked.write_text("")
    assert "cannot write" in refused("fid-stats", "bright", "-o", locked / "s.safetensors")
    refused("fid-stats", "bad", "-o", "bad-stats.safetensors")
    assert not [path for path in place.iterdir() if "stats" in path.name]


def test_the_factor_is_kept_with_the_statistics(cli, place, monkeypatch):
    monkeypatch.chdir(place)
    cli("fid-stats", "dark", "-o", "kept.safetensors", "--features", "little:Pooled")
    stored = load_file("kept.safetensors")
    product = stored["chol"] @ stored["chol"].T
    torch.testing.assert_close(product, stored["cov"])


def test_eval_compares_samples_too(cli, fid, trained):
    arguments = ("eval", trained[0], "--fid", "--fid-samples", "40", "--images", "20")
    result = cli(*arguments, "--features", "little:Pooled", "--json")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["num_images"] == 20
    assert record["fid"]["results"] == fid(trained[0], "-n", "40")["results"]
    shown = cli(*arguments, "--features", "little:Pooled").stdout
    assert "FD-little:Pooled" in shown
    assert "ELBO" in shown


def test_eval_looks_for_the_network_first(refused, trained):
    assert "nowhere" in refused("eval", trained[0], "--fid", features="nowhere:Pooled")
