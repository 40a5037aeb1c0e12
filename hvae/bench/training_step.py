"""A training step of the two presets at equal layout, width and batch: time and memory.

The presets differ in the form of the std, its floor and the activation; everything else, the
optimiser included, is the same. "without kernels" is the preset with the ops' references.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hvae import ops
from hvae.bench.measure import Call, Quantiles, interleaved_ms, one_thread
from hvae.losses import objective
from hvae.models import HVAE, ModelConfig

BATCH = 8
LAYOUT: dict[str, Any] = {
    "size": (32, 32),
    "channels": 3,
    "encoder": "32x3,32d2,16x3,16d2,8x2,8d2,4x1,4d4,1x1",
    "decoder": "1x1,4m1,4x1,8m4,8x3,16m8,16x5,32m16,32x8",
    "width": 96,
}
# Name of a variant: its preset, and whether it runs the references.
VARIANTS = {
    "vdvae": ("vdvae", False),
    "hvae": ("hvae", False),
    "vdvae without kernels": ("vdvae", True),
    "hvae without kernels": ("hvae", True),
}
_KIB = 1024


@dataclass(frozen=True)
class StepFigures:
    """What a step of one variant takes.

    Attributes:
        variant: its name.
        parameters: numbers the model learns.
        time_ms: thread CPU time of forward, backward and update on one thread.
        ratio: that time over the one of "vdvae" in the same round.
        saved_bytes: tensors that the forward keeps for the backward, parameters aside.
        resident_bytes: peak of a process of its own that takes three steps.
        idle_bytes: what that process held before the first one.
    """

    variant: str
    parameters: int
    time_ms: Quantiles
    ratio: Quantiles
    saved_bytes: int
    resident_bytes: int
    idle_bytes: int


def run(rounds: int = 9) -> list[StepFigures]:
    """Measure all variants, interleaved, on one thread."""
    with one_thread():
        models = {name: make_model(preset) for name, (preset, _) in VARIANTS.items()}
        steps = {name: step_of(models[name], name) for name in VARIANTS}
        times = interleaved_ms(steps, rounds, sample_ms=0.0)
    figures = []
    for name, values in times.items():
        ratios = [own / base for own, base in zip(values, times["vdvae"], strict=True)]
        memory = _memory_of_process(name)
        figures.append(
            StepFigures(
                variant=name,
                parameters=sum(p.numel() for p in models[name].parameters()),
                time_ms=Quantiles.of(values),
                ratio=Quantiles.of(ratios),
                saved_bytes=saved_bytes(models[name], VARIANTS[name][1]),
                resident_bytes=memory["peak"],
                idle_bytes=memory["idle"],
            )
        )
    return figures


def make_model(preset: str) -> HVAE:
    """A model of the layout with weights that the preset does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return HVAE(ModelConfig.model_validate({"preset": preset, **LAYOUT}))


def step_of(model: HVAE, variant: str) -> Call:
    """A call without arguments that takes one optimisation step."""
    x = images()
    optimizer = torch.optim.Adamax(model.parameters(), lr=1e-4, foreach=True)
    path = _path(VARIANTS[variant][1])

    def step() -> object:
        with path():
            loss_of(model, x).backward()
        optimizer.step()
        optimizer.zero_grad()
        return None

    return step


def loss_of(model: HVAE, x: Tensor) -> Tensor:
    """The objective of a step, nats per dimension."""
    return objective(model(x), model.num_dims, beta=1.0, free_bits=0.0)


def images() -> Tensor:
    """A batch of noise, uint8; what the images show does not change the work."""
    channels, size = LAYOUT["channels"], LAYOUT["size"]
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH, channels, *size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def saved_bytes(model: HVAE, reference: bool) -> int:
    """Bytes of the storages that a forward pass keeps for its backward, parameters aside."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with _path(reference)(), hooks:
        loss = loss_of(model, images())  # held, so that no storage is freed and its place reused
    total = sum(kept.values())
    del loss
    return total


def markdown(figures: list[StepFigures]) -> str:
    """A table with a line per variant."""
    lines = [
        ["variant", "parameters", "step ms", "/ vdvae", "saved MiB", "peak resident MiB", "idle"],
        ["---"] * 7,
    ]
    for f in figures:
        lines.append(
            [
                f.variant,
                f"{f.parameters:,}",
                f"{f.time_ms.p50:.0f}",
                f"{f.ratio.p50:.3f} [{f.ratio.p20:.3f}, {f.ratio.p80:.3f}]",
                *(f"{b / _KIB**2:.0f}" for b in (f.saved_bytes, f.resident_bytes, f.idle_bytes)),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _path(reference: bool) -> Callable[[], AbstractContextManager[None]]:
    return ops.reference if reference else nullcontext


def _memory_of_process(variant: str) -> Mapping[str, int]:
    program = f"from hvae.bench import training_step as t; t.print_memory({variant!r})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    memory: Mapping[str, int] = json.loads(done.stdout)
    return memory


def print_memory(variant: str) -> None:
    """Print resident bytes of this process before and at the peak of three steps, as JSON."""
    torch.set_num_threads(1)
    step = step_of(make_model(VARIANTS[variant][0]), variant)
    idle = _peak_resident()
    for _ in range(3):
        step()
    print(json.dumps({"idle": idle, "peak": _peak_resident()}))


def _peak_resident() -> int:
    # Not getrusage: its maximum begins with what the parent held when it started this process.
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * _KIB
