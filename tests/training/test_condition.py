"""Conditional runs: what they record, that they resume exactly, and how they are scored."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import hvae
from hvae import checkpoint
from hvae.data import open_source
from hvae.errors import UserError
from hvae.metrics import evaluate_likelihood
from hvae.training import Config, fit
from hvae.training.signals import StopRequest

CONDITIONS = {
    "class": ("model.condition.kind=class",),
    "low resolution": ("model.condition={kind: image, source: downsample}",),
    "mask": ("model.condition={kind: image, source: mask}", "data.flip=true"),
}
each_condition = pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)

Tiny = Callable[..., Config]


def weights(run: Path) -> dict[str, torch.Tensor]:
    folder = checkpoint.find_checkpoint(run)
    return {
        f"{stem}.{name}": tensor
        for stem in ("model", "ema", "optim")
        for name, tensor in load_file(folder / f"{stem}.safetensors").items()
    }


@each_condition
def test_a_stopped_run_ends_with_the_same_bits(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, condition: tuple[str, ...]
) -> None:
    settings = ("train.images=30", "model.condition.dropout=0.4", *condition)
    whole = fit(tiny(*settings, "name=whole"))
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "__init__", lambda stop: setattr(stop, "requested", True))
        for images in (4, 8, 12):
            stopped = fit(tiny(*settings, "name=cut"))
            assert (stopped.stopped, stopped.images) == (True, images)
    resumed = fit(tiny(*settings, "name=cut"))
    assert dataclasses.replace(resumed, run=whole.run) == whole
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    for sheet in (tmp_path / "whole" / "samples").iterdir():
        assert sheet.read_bytes() == (tmp_path / "cut" / "samples" / sheet.name).read_bytes()


def test_a_run_knows_its_classes(tiny: Tiny, tmp_path: Path) -> None:
    result = fit(tiny("model.condition.kind=class"))
    model = hvae.load(result.run)
    assert model.config.condition.classes == ("disc", "square", "ring")
    assert model.sample(2, cond="ring").shape == (2, 1, 8, 8)
    assert "- ring" in (result.run / "config.yaml").read_text()
    # The recorded configuration describes the same run.
    again = fit(hvae.training.load_config(result.run / "config.yaml"))
    assert again == result


@each_condition
def test_a_conditional_model_is_scored_under_the_conditions_of_the_data(
    tiny: Tiny, condition: tuple[str, ...]
) -> None:
    config = tiny("train.images=60", *condition)
    result = fit(config)
    model, test = hvae.load(result.run), open_source(config.data, "test")
    scores = [evaluate_likelihood(model, test, batch=b, importance=2) for b in (7, 64)]
    assert scores[1].elbo_bits_per_dim == result.bits_per_dim
    for name in ("elbo_bits_per_dim", "importance_bits_per_dim"):
        assert getattr(scores[0], name) == pytest.approx(getattr(scores[1], name), rel=1e-5)
    model.condition_of = lambda *args, **kwargs: None  # type: ignore[method-assign]
    ignorant = evaluate_likelihood(model, test)
    assert ignorant.elbo_bits_per_dim != scores[1].elbo_bits_per_dim


def test_runs_train_on_vectors_and_images_of_a_file(tiny: Tiny, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8), dtype=np.uint8)
    for name, conditions in (
        ("vector", images.reshape(24, -1)[:, :3].astype(np.float32) / 255),
        ("image", images[:, ::2, ::2]),
    ):
        file = tmp_path / f"{name}.npz"
        np.savez(file, images=images, conditions=conditions)
        result = fit(
            tiny(f"data.source={file}", f"model.condition.kind={name}", f"name={name}", "eval={}")
        )
        model = hvae.load(result.run)
        assert model.config.condition.shape == ((3,) if name == "vector" else (1, 4, 4))


def test_a_set_without_labels_leaves_no_folder(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"kind is class, but emoji-32 \(train\) has no labels"):
        fit(tiny("data={source: emoji-32, batch: 4}", "model.condition.kind=class"))
    assert not (tmp_path / "tiny").exists()


def test_a_run_is_not_resumed_under_another_condition(tiny: Tiny) -> None:
    fit(tiny("train.images=8"))
    with pytest.raises(UserError, match=r"model\.condition\.kind=none \(now class\)"):
        fit(tiny("train.images=8", "model.condition.kind=class"))


def test_bf16_runs_take_conditions(tiny: Tiny) -> None:
    options = ("model.condition.kind=class", "model.attention=[8]", "eval.images=8")
    result = fit(tiny("train.images=8", "train.precision=bf16", *options))
    assert result.bits_per_dim is not None
