"""A training step of the two presets at equal layout, width and batch: time and memory.

The presets differ in the form of the std, its floor and the activation; everything else, the
optimiser included, is the same. "without kernels" is the preset with the ops' references,
"compiled" the whole model under `torch.compile(fullgraph=True)`.
"""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hvae import ops
from hvae.bench.measure import Call, Meter, Quantiles, one_thread
from hvae.bench.record import StepFigures
from hvae.losses import objective
from hvae.models import HVAE, Elbo, ModelConfig

# A device needs more images than a CPU before arithmetic outweighs launches.
BATCHES = {"cpu": 8, "cuda": 64}
LAYOUT: dict[str, Any] = {
    "size": (32, 32),
    "channels": 3,
    "encoder": "32x3,32d2,16x3,16d2,8x2,8d2,4x1,4d4,1x1",
    "decoder": "1x1,4m1,4x1,8m4,8x3,16m8,16x5,32m16,32x8",
    "width": 96,
}


class Variant(NamedTuple):
    """A preset, and how it is run."""

    preset: str
    reference: bool = False
    compiled: bool = False


VARIANTS = {
    "vdvae": Variant("vdvae"),
    "hvae": Variant("hvae"),
    "vdvae without kernels": Variant("vdvae", reference=True),
    "hvae without kernels": Variant("hvae", reference=True),
}
# Takes minutes to compile, and is left out unless asked for.
COMPILED_VARIANTS = {"hvae compiled": Variant("hvae", compiled=True)}
_KIB = 1024


def variant_names(*, compiled: bool) -> Sequence[str]:
    """Names of the variants to measure."""
    return [*VARIANTS, *(COMPILED_VARIANTS if compiled else ())]


def variant_of(name: str) -> Variant:
    """The variant of a name, compiled ones included."""
    return {**VARIANTS, **COMPILED_VARIANTS}[name]


def run(
    meter: Meter, rounds: int = 9, variants: Sequence[str] = tuple(VARIANTS)
) -> list[StepFigures]:
    """Measure variants, "vdvae" among them, interleaved, on one thread."""
    batch = BATCHES[meter.device]
    with one_thread():
        models = {name: make_model(variant_of(name).preset, meter.device) for name in variants}
        steps = {name: step_of(models[name], name, batch) for name in variants}
        times = meter.interleaved_ms(steps, rounds)
    figures = []
    for name, values in times.items():
        ratios = [own / base for own, base in zip(values, times["vdvae"], strict=True)]
        memory = _memory_of_process(name) if meter.device == "cpu" else _memory_on_cuda(name)
        figures.append(
            StepFigures(
                variant=name,
                parameters=sum(p.numel() for p in models[name].parameters()),
                time_ms=Quantiles.of(values),
                ratio=Quantiles.of(ratios),
                saved_bytes=saved_bytes(models[name], name, batch),
                resident_bytes=memory["peak"],
                idle_bytes=memory["idle"],
                batch=batch,
            )
        )
    return figures


def make_model(preset: str, device: str = "cpu") -> HVAE:
    """A model of the layout with weights that the preset does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return HVAE(ModelConfig.model_validate({"preset": preset, **LAYOUT})).to(device)


def step_of(model: HVAE, variant: str, batch: int = BATCHES["cpu"]) -> Call:
    """A call without arguments that takes one optimisation step."""
    x = images(batch).to(model.device)
    optimizer = torch.optim.Adamax(model.parameters(), lr=1e-4, foreach=True)
    call = torch.compile(model, fullgraph=True) if variant_of(variant).compiled else model

    def step() -> object:
        with _path(variant):
            loss_of(call, x).backward()
        optimizer.step()
        optimizer.zero_grad()
        return None

    return step


def loss_of(model: Callable[[Tensor], Elbo], x: Tensor) -> Tensor:
    """The objective of a step, nats per dimension."""
    return objective(model(x), math.prod(x.shape[1:]), beta=1.0, free_bits=0.0)


def images(batch: int) -> Tensor:
    """A batch of noise, uint8; what the images show does not change the work."""
    channels, size = LAYOUT["channels"], LAYOUT["size"]
    generator = torch.Generator().manual_seed(0)
    shape = (batch, channels, *size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def saved_bytes(model: HVAE, variant: str, batch: int = BATCHES["cpu"]) -> int:
    """Bytes of the storages that a forward pass keeps for its backward, parameters aside.

    A compiled model decides by itself what it keeps, and is taken for the eager one here.
    """
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    x = images(batch).to(model.device)
    with _path(variant), hooks:
        loss = loss_of(model, x)  # held, so that no storage is freed and its place reused
    total = sum(kept.values())
    del loss
    return total


def _path(variant: str) -> AbstractContextManager[None]:
    return ops.reference() if variant_of(variant).reference else nullcontext()


def _memory_of_process(variant: str) -> Mapping[str, int]:
    program = f"from hvae.bench import training_step as t; t.print_memory({variant!r})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    memory: Mapping[str, int] = json.loads(done.stdout)
    return memory


def _memory_on_cuda(variant: str) -> Mapping[str, int]:
    """As `print_memory`, of what torch allocates on the device for this variant alone."""
    before = torch.cuda.memory_allocated()
    model = make_model(variant_of(variant).preset, "cuda")
    step = step_of(model, variant, BATCHES["cuda"])
    torch.cuda.reset_peak_memory_stats()
    idle = torch.cuda.memory_allocated()
    for _ in range(3):
        step()
    return {"idle": idle - before, "peak": torch.cuda.max_memory_allocated() - before}


def print_memory(variant: str) -> None:
    """Print resident bytes of this process before and at the peak of three steps, as JSON."""
    torch.set_num_threads(1)
    step = step_of(make_model(variant_of(variant).preset), variant)
    idle = _peak_resident()
    for _ in range(3):
        step()
    print(json.dumps({"idle": idle, "peak": _peak_resident()}))


def _peak_resident() -> int:
    # Not getrusage: its maximum begins with what the parent held when it started this process.
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * _KIB
