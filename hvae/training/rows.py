"""Rows of kind "train": means over the steps since the row before, and where training stands."""

import math
from typing import Any

from hvae.training.memory import peak_memory_mib
from hvae.training.metrics_log import Meter
from hvae.training.step import Stepper, StepReport


def add_step(meter: Meter, report: StepReport, *, batch: int, seconds: float) -> None:
    """Counts one step on so many images, of all processes, which took so long."""
    meter.add(skipped=float(report.skipped), batch=float(batch), seconds=seconds)
    if not math.isfinite(report.grad_norm):  # one bad step must not blank a whole row
        return
    meter.add(
        objective=report.objective,
        nll=report.nll,
        kl_per_group=list(report.kl),
        grad_norm=report.grad_norm,
        clipped=float(report.grad_norm > report.clip_norm),
    )
    if report.spectral is not None:
        meter.add(spectral=report.spectral)


def train_row(meter: Meter, stepper: Stepper, report: StepReport) -> dict[str, Any]:
    """Returns the row; the meter starts over.

    Args:
        meter: what `add_step` counted, and the seconds each batch was waited for.
        stepper: where the run stands.
        report: of its last step.
    """
    means: dict[str, Any] = meter.means()
    batch, seconds, wait = (means.pop(name) for name in ("batch", "seconds", "wait"))
    kl = sum(means.get("kl_per_group", ()))
    nats = means.get("nll", math.nan) + kl
    return {
        "kind": "train",
        "step": stepper.steps,
        "images": stepper.images,
        "bits_per_dim": nats / (math.log(2) * stepper.model.num_dims),
        **means,
        "kl": kl,
        "beta": report.beta,
        "free_bits": report.free_bits,
        "lr": report.lr,
        "clip_norm": report.clip_norm,
        "skips": stepper.guard.skips,
        "rollbacks": stepper.guard.rollbacks,
        "images_per_second": batch / (seconds + wait),
        "data_wait": wait / (seconds + wait),
        "memory_mib": peak_memory_mib(stepper.model.device),
    }
