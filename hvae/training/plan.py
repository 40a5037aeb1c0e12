"""What a run will take, before it starts: `hvae train --plan`."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from hvae.models.recompute import Level, Recompute
from hvae.training.build import complete, planned_model
from hvae.training.config import Config
from hvae.training.footprint import Footprint, footprint
from hvae.training.memory_plan import free_bytes, plan_for
from hvae.training.precision import uses_bf16
from hvae.training.step import Stepper

_MIB, _GIB = 2**20, 2**30
_MEASURED_SECONDS = 20.0
_MEASURED_STEPS = 3


@dataclass(frozen=True)
class TrainingPlan:
    """What a run will take.

    name               meaning
    device             where it would run
    footprint          of one pass over the images that go through the model at once
    recompute          what the backward computes again, to fit the budget
    batch              images of a step
    accumulate         parts that they go through the model in
    free_bytes         memory of the device that nobody uses now
    images_per_second  as measured; None if it was not measured
    measured_batch     images at once in that measurement
    note               why it was not measured
    """

    device: str
    footprint: Footprint
    recompute: Recompute
    batch: int
    accumulate: int
    free_bytes: int
    images_per_second: float | None
    measured_batch: int
    note: str | None = None

    def record(self) -> dict[str, Any]:
        """Returns everything as JSON values; memory in bytes."""
        found = self.footprint
        return {
            **asdict(self),
            "activation_bytes_per_image": found.held // found.batch,
            "flops_per_image": found.flops // found.batch,
            "total_bytes": found.total,
        }

    def rows(self) -> dict[str, str]:
        """Returns what a person wants to know, by name."""
        found, levels = self.footprint, self.recompute
        if self.images_per_second is None:
            speed = f"not measured: {self.note}"
        else:
            speed = f"{self.images_per_second:.3g}, measured at {self.measured_batch} at once"
        return {
            "parameters": f"{found.parameters:,}",
            "device": f"{self.device}, {self.free_bytes / _GIB:.1f} GiB free",
            "images at once": f"{found.batch} ({self.batch} per step in {self.accumulate} parts)",
            "activations": f"{found.held / found.batch / _MIB:.1f} MiB per image",
            "recomputed, encoder": _levels(levels.encoder),
            "recomputed, decoder": _levels(levels.decoder),
            "head": f"in {levels.head} bands" if levels.head else "at once",
            "weights and optimiser": f"{found.states / _MIB:.0f} MiB",
            "most in a step": f"{found.total / _GIB:.2f} GiB",
            "arithmetic": f"{found.flops / found.batch / 1e9:.1f} GFLOP per image",
            "images/s": speed,
        }


def make_plan(
    config: Config, *, device: torch.device | str | None = None, measure: bool = True
) -> TrainingPlan:
    """Returns what the run of a configuration will take. Writes nothing.

    Memory and arithmetic come from a pass over tensors without data, so a model that does not fit
    the machine can be planned for; the data is opened only where the configuration does not say
    its size. Speed comes from up to three steps on noise, of the run's own size; on a CPU of one
    image, where those of the run would take long.

    Raises:
        UserError: if the data or the layout do not fit, or nothing fits `train.memory_gib`.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    config = complete(config)
    train, bf16 = config.train, uses_bf16(config.train, device)
    at_once = -(-config.data.batch // train.accumulate)
    free = free_bytes(device)
    recompute = plan_for(config.model, train, at_once, device, bf16=bf16)
    found = footprint(config.model, at_once, recompute, bf16=bf16)
    rate, batch, reason = None, at_once, None if measure else "not asked for"
    for size in _measured_sizes(at_once, device) if measure else ():
        taken = found if size == at_once else footprint(config.model, size, recompute, bf16=bf16)
        quick = rate is None or size / rate * (1 + _MEASURED_STEPS) < _MEASURED_SECONDS
        if not quick or taken.total > free:
            reason = None if rate else f"{size} at once takes {taken.total / _GIB:.1f} GiB"
            break
        rate, batch = _images_per_second(config, recompute, device, size), size
    return TrainingPlan(
        device=str(device),
        footprint=found,
        recompute=recompute,
        batch=config.data.batch,
        accumulate=train.accumulate,
        free_bytes=free,
        images_per_second=rate,
        measured_batch=batch,
        note=reason,
    )


def _measured_sizes(at_once: int, device: torch.device) -> list[int]:
    """Images of the steps that are timed: on a CPU first of one, which tells what more take."""
    return [at_once] if device.type == "cuda" else sorted({1, at_once})


def _images_per_second(config: Config, plan: Recompute, device: torch.device, batch: int) -> float:
    """Under the plan of the run: one of so few images might have nothing to recompute."""
    model = planned_model(config, plan, device)
    graphs = config.train.cuda_graphs and device.type == "cuda"  # planned for another machine
    train = config.train.model_copy(update={"accumulate": 1, "cuda_graphs": graphs})
    stepper = Stepper(model, train, config.seed)
    x = torch.randint(256, (batch, *model.shape), dtype=torch.uint8, device=device)
    times: list[float] = []
    stepper.step(x)  # compilers, the allocator, the optimiser's moments
    while len(times) < _MEASURED_STEPS and sum(times) < _MEASURED_SECONDS:
        began = time.perf_counter()
        stepper.step(x)  # ends with a number on the host
        times.append(time.perf_counter() - began)
    return batch / min(times)


def _levels(levels: Mapping[int, Level]) -> str:
    told = [f"{r}: {level}" for r, level in sorted(levels.items(), reverse=True) if level != "none"]
    return ", ".join(told) or "nothing"
