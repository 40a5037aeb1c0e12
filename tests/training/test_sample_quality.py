"""`eval.fid_every`: how far a run's samples are from its test images, on the way."""

import json

import pytest
import torch

from hvae import checkpoint
from hvae.data import DataConfig, open_source, permuted
from hvae.errors import UserError
from hvae.metrics import frechet_from_features
from hvae.training import fit
from hvae.training.curves import read_curves

EXTRACTOR = """
import torch.nn.functional as F


class Pooled:
    dim = 3
    sha256 = "pooled"

    def __call__(self, images):
        return F.adaptive_avg_pool2d(images[:, :1].float(), (3, 1)).flatten(1)
"""

ASKED = ("eval.fid_every=12", "eval.fid_samples=20", "eval.fid_features=pooling:Pooled")


@pytest.fixture(autouse=True)
def _extractor(tmp_path, monkeypatch):
    (tmp_path / "pooling.py").write_text(EXTRACTOR)
    monkeypatch.chdir(tmp_path)


def rows(run, kind):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def test_samples_are_compared_on_the_way_and_at_the_end(tiny, tmp_path):
    fit(tiny(*ASKED))
    found = rows(tmp_path / "tiny", "fid")
    assert [row["images"] for row in found] == [12, 24, 30]
    assert {row["metric"] for row in found} == {"FD-pooling:Pooled"}
    assert found[0]["n_fake"] == 20
    curves = read_curves(tmp_path / "tiny")
    assert curves.fid == [row["value"] for row in found]
    assert curves.fid_images == [12, 24, 30]


def test_the_distance_is_that_of_the_averaged_weights(tiny, tmp_path):
    config = tiny(*ASKED)
    fit(config)
    model = checkpoint.load(tmp_path / "tiny")
    test = open_source(DataConfig(source="shapes", size=8, channels=1), "test")
    pooled = [
        torch.nn.functional.adaptive_avg_pool2d(images.float(), (3, 1)).flatten(1)
        for images in (model.sample(20, seed=config.seed), _chosen(test, 20, config.seed))
    ]
    wanted = frechet_from_features(*pooled)
    assert rows(tmp_path / "tiny", "fid")[-1]["value"] == pytest.approx(wanted, rel=1e-5)


def _chosen(source, count, seed):
    chosen = sorted(permuted(seed, 0, range(count), len(source)).tolist())
    return torch.stack([source[row] for row in chosen])


def test_comparing_changes_no_weight(tiny, tmp_path):
    fit(tiny("name=compared", *ASKED))
    fit(tiny("name=plain"))
    weights = [
        next((tmp_path / name / "checkpoints").iterdir()) / "model.safetensors"
        for name in ("compared", "plain")
    ]
    assert weights[0].name == weights[1].name
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_network_that_is_not_there_stops_the_run_before_it_begins(tiny, tmp_path):
    with pytest.raises(UserError, match="nothing_here"):
        fit(tiny("eval.fid_every=12", "eval.fid_features=nothing_here:Pooled"))
    assert not (tmp_path / "tiny").exists()


def test_cut_models_do_not_sample(tiny):
    with pytest.raises(UserError, match="fid_every"):
        tiny("train.sharding=fsdp", *ASKED)
