"""Runs that are damaged, weights that stand alone, and conditions that a model does not know."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from hvae import HVAE, checkpoint
from hvae.checkpoint import write_state, write_tensors
from hvae.models import ModelConfig
from tests.cli.hostile.case import Case, Make

CLASSES = ("boot", "bag", "coat")
LADDER: dict[str, Any] = {
    "encoder": "14x1,14d2,7x1",
    "decoder": "7x1,14m7",
    "patch": 2,
    "channels": 1,
    "size": [28, 28],
    "width": 8,
    "widths": {"7": 12},
    "z_channels": 2,
    "likelihood": {"mixtures": 2},
}


TOLD = {"condition": {"kind": "class", "classes": CLASSES}}
TINY = {"encoder": "4x1,4d2,2x1", "decoder": "2x1,4m2", "size": [8, 8], "widths": {"2": 12}}


def write_run(folder: Path, data: str, **changes: Any) -> Path:
    """Writes a run of one checkpoint, as training would have, of a model that has seen nothing."""
    config = ModelConfig.model_validate({**LADDER, **changes})
    state = {"config": {"data": {"source": data}, "model": config.model_dump(mode="json")}}
    weights = HVAE(config).state_dict()
    tensors = {"model": weights, "ema": weights}
    checkpoint.save(folder, 4, tensors, state, keep_last=1)
    (folder / "latest").write_text("step-4\n")
    return folder


NEWEST = "checkpoints/step-4"


def damaged(damage: Callable[[Path], object]) -> Make:
    """Returns what copies the run `run` to `a` and lets something happen to its checkpoint."""

    def make(folder: Path) -> None:
        shutil.copytree(folder / "run", folder / "a")
        damage(folder / "a" / NEWEST)

    return make


def _cut(name: str) -> Make:
    return damaged(lambda step: (step / name).write_bytes((step / name).read_bytes()[:-9]))


def _state(text: str) -> Make:
    return damaged(lambda step: (step / "state.json").write_text(text))


def _saying(**changes: Any) -> Make:
    """A checkpoint, whole by its hashes, whose configuration says something else."""

    def damage(step: Path) -> None:
        state = checkpoint.read_state(step)
        hashes = state.pop("sha256")
        write_state(step, {**state, "config": {**state["config"], **changes}}, hashes)

    return damaged(damage)


def _holding(change: Callable[[dict[str, torch.Tensor]], object]) -> Make:
    """A checkpoint, whole by its hashes, with other tensors."""

    def damage(step: Path) -> None:
        tensors = load_file(step / "ema.safetensors")
        change(tensors)
        state = checkpoint.read_state(step)
        state.pop("sha256")
        write_state(step, state, write_tensors(step, {"ema": tensors}))

    return damaged(damage)


def _latest(content: bytes) -> Make:
    """A run whose `latest` says something else, and whose checkpoint is cut."""

    def damage(step: Path) -> None:
        (step.parent.parent / "latest").write_bytes(content)
        (step / "ema.safetensors").write_bytes(b"")

    return damaged(damage)


def _alone(config: str | None, change: Callable[[Path], object] | None = None) -> Make:
    """A file of weights `w.safetensors`, with a `config.json` or none beside it."""

    def make(folder: Path) -> None:
        shutil.copy(folder / "run" / NEWEST / "ema.safetensors", folder / "w.safetensors")
        if config is not None:
            (folder / "config.json").write_text(config)
        if change is not None:
            change(folder / "w.safetensors")

    return make


def _fill(value: float) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: next(iter(tensors.values())).fill_(value)


RUNS: dict[str, tuple[Make, str]] = {
    "cut weights": (_cut("ema.safetensors"), "no checkpoint of it is complete"),
    "a cut state": (_cut("state.json"), "no checkpoint of it is complete"),
    "a state that is no object": (_state("[]"), "wanted a JSON object"),
    "a state of brackets": (_state("[" * 100_000), "cannot be read as JSON"),
    "a state of other bytes": (_state("{}"), "names no files"),
    "lost weights": (
        damaged(lambda step: (step / "ema.safetensors").unlink()),
        "ema.safetensors is missing",
    ),
    "a lost checkpoint": (damaged(shutil.rmtree), "step-4: it is gone"),
    "a latest that names nothing": (_latest(b"step-9\n"), "step-9: it is gone"),
    "a latest that leads out": (_latest(b"../../../etc\n"), "wanted the name of a checkpoint"),
    "a latest of bytes": (_latest(b"\xff\xfe\0"), "no checkpoint of it is complete"),
    "a latest with an escape": (_latest(b"\x1b[31m"), r"\x1b[31m"),
    "no data": (_saying(data=None), "does not say what it was trained on"),
    "data of no kind": (_saying(data={"source": 3}), "data.source"),
    "data with unknown keys": (_saying(data={"source": "bright", "sourec": "x"}), "data.sourec"),
    "data that is gone": (_saying(data={"source": "gone"}), "gone"),
    "no model": (_saying(model=None), "holds no configuration of a model"),
    "a model of no kind": (_saying(model={"encoder": 3}), "not valid"),
    "a model of another width": (_saying(model={**LADDER, "width": 16}), "does not fit"),
    "a model of enormous width": (_saying(model={**LADDER, "width": 10**7}), "does not fit"),
    "weights that are not finite": (_holding(_fill(torch.nan)), "not finite"),
    "weights of no name": (_holding(dict.clear), "is missing"),
    "a weight too many": (_holding(lambda t: t.update(extra=torch.ones(1))), "extra is not part"),
    "no checkpoint": (lambda folder: (folder / "a" / "samples").mkdir(parents=True), "no image in"),
}

WEIGHTS: dict[str, tuple[Make, str]] = {
    "no configuration": (_alone(None), "a file that hvae fid-stats wrote"),
    "a configuration that is no JSON": (_alone("{"), "config.json: cannot be read as JSON"),
    "a configuration that is a list": (_alone("[]"), "wanted a JSON object"),
    "an unknown key": (_alone('{"widht": 8}'), "widht"),
    "another model": (_alone(json.dumps({**LADDER, "width": 16})), "does not fit"),
    "cut": (
        _alone(json.dumps(LADDER), lambda f: f.write_bytes(f.read_bytes()[:-9])),
        "safetensors",
    ),
    "a huge header": (
        _alone(json.dumps(LADDER), lambda f: f.write_bytes(b"\xff" * 8)),
        "safetensors",
    ),
    "not finite": (
        _alone(json.dumps(LADDER), lambda f: save_file(_filled(f, torch.inf), f)),
        "not finite",
    ),
}


def _filled(file: Path, value: float) -> dict[str, torch.Tensor]:
    return {name: torch.full_like(tensor, value) for name, tensor in load_file(file).items()}


# What is asked of a run that is whole: words after A, and what is said.
ASKED: dict[str, tuple[str, tuple[str, ...], str]] = {
    "a condition without one": ("run", ("--cond", "class=boot"), "takes no condition"),
    "guidance without a condition": ("run", ("--guidance", "2"), "guidance"),
    "guidance that is no number": (
        "told",
        ("--cond", "class=boot", "--guidance", "nan"),
        "--guidance",
    ),
    "endless guidance": ("told", ("--cond", "class=boot", "--guidance", "inf"), "--guidance"),
    "negative guidance": ("told", ("--cond", "class=boot", "--guidance", "-1"), "--guidance"),
    "an unknown class": ("told", ("--cond", "class=bot"), "did you mean boot"),
    "no class": ("told", ("--cond", "class="), "no class"),
    "a class out of range": ("told", ("--cond", "class=7"), "no class 7"),
    "no kind": ("told", ("--cond", "boot"), "wanted class=... or data=test"),
    "an empty condition": ("told", ("--cond", ""), "wanted class=... or data=test"),
    "another kind": ("told", ("--cond", "vector=1,2"), "wanted class=... or data=test"),
    "another split": ("told", ("--cond", "data=valid"), "wanted data=train or data=test"),
    "a split of a set without classes": ("told", ("--cond", "data=test"), "no labels"),
    "reconstructions of a set": (
        "bright",
        ("--real", "dark", "--reconstructions"),
        "wants a run as A",
    ),
    "reconstructions of a run's samples": (
        "run",
        ("--real", "told", "--reconstructions"),
        "wants a run as A",
    ),
    "reconstructions of unlabelled images": (
        "told",
        ("--real", "bright", "--split", "test", "--reconstructions"),
        "no labels",
    ),
    "reconstructions smaller than a window": (
        "tiny",
        ("--real", "bright", "--reconstructions"),
        "SSIM has a window of 11 x 11",
    ),
    "sharpness of another size": (
        "bright",
        ("--real", "run", "--num-real", "4", "--metrics", "sharpness"),
        "of one size",
    ),
    "reconstructions at a temperature": (
        "run",
        ("--reconstructions", "--temperature", "0.7"),
        "--temperature",
    ),
    "reconstructions and a condition": (
        "told",
        ("--reconstructions", "--cond", "class=boot"),
        "--cond",
    ),
    "more reconstructions than images": ("run", ("--reconstructions", "--num", "5"), "--num"),
    "a split": ("run", ("--a-split", "test"), "split"),
    "another size": ("run", ("--real", "bright", "--size", "9"), "--size"),
    "a set whose name is no text": ("run", ("--real", os.fsdecode(b"\xff")), r"\xff: data.source"),
    "best of a run without": ("run/best", (), "no such file"),
    "a checkpoint that is not there": ("run/checkpoints/step-9", (), "step-9"),
    "the wrong part of a run": ("run/checkpoints", (), "no image in"),
    "a condition for a set": ("bright", ("--real", "dark", "--cond", "class=boot"), "--cond"),
    "a temperature for a set": (
        "bright",
        ("--real", "dark", "--temperature", "0.5"),
        "--temperature",
    ),
    "an output for a set": ("bright", ("--real", "dark", "--output", "mean"), "--output"),
    "guidance for a set": ("bright", ("--real", "dark", "--guidance", "3"), "--guidance"),
}

CASES = [
    *(
        Case(f"run with {name}", ("fid", "a", "-n", "4"), told, make)
        for name, (make, told) in RUNS.items()
    ),
    *(
        Case(
            f"weights with {name}",
            ("fid", "w.safetensors", "--real", "bright", "-n", "4"),
            told,
            make,
        )
        for name, (make, told) in WEIGHTS.items()
    ),
    Case(
        "weights without data",
        ("fid", "w.safetensors", "-n", "4"),
        "--real",
        _alone(json.dumps(LADDER)),
    ),
    Case(
        "a named checkpoint that is cut",
        ("fid", f"a/{NEWEST}", "-n", "4"),
        "this checkpoint is damaged",
        _cut("ema.safetensors"),
    ),
    *(
        Case(f"run asked for {name}", ("fid", word, *words), told)
        for name, (word, words, told) in ASKED.items()
    ),
    Case("run for fid-stats", ("fid-stats", "run", "-o", "s.safetensors"), "wanted images"),
]
