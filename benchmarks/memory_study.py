"""What activation checkpointing saves and costs: bytes held, peak memory and step time by level.

python benchmarks/memory_study.py --rounds 9 --save benchmarks/results
python benchmarks/memory_study.py --config vdvae/ffhq1024 --settings none block --peak-only

Bytes held are what the forward leaves for the backward, by the allocator's account; the estimate
beside them is that of `hvae train --plan`. The peak is the most that one optimisation step had
resident, in a process of its own, with weights, optimiser, average, Python and torch. Times are
thread CPU time on one thread, interleaved; the ratio is to "none" within a round. No figure is
given for a setting whose gradients are not bitwise those of "none".
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from hvae.bench.device import model_meter
from hvae.bench.machine import machine
from hvae.bench.measure import CpuMeter, Quantiles, one_thread
from hvae.bench.report import keep
from hvae.losses import objective
from hvae.models import HVAE
from hvae.models.recompute import LEVELS
from hvae.training import Config, load_config
from hvae.training.build import build_model, complete
from hvae.training.footprint import footprint
from hvae.training.memory_plan import plan_for
from hvae.training.step import Stepper

MIB = 2**20
PUBLISHED_MIB = 0.55 * 1024  # per 32x32 image of the published code on vdvae/cifar10


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    if args.child:
        print(json.dumps(_one_step(args.config, args.child, args.batch)))
        return
    with one_thread():
        rows = {setting: _memory(args.config, setting, args.batch) for setting in args.settings}
        if not args.peak_only:
            _measure(rows, args.config, args.batch, args.rounds)
        where = machine(model_meter("cpu"))
    text = table(args.config, args.batch, rows, where)
    print(text)
    if args.save:
        record = {"machine": where, "config": args.config, "batch": args.batch, "settings": rows}
        keep(record, text, f"memory_study-{args.config.replace('/', '-')}", args.save)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="What activation checkpointing saves and costs")
    parser.add_argument("--config", default="vdvae/cifar10")
    parser.add_argument("--settings", nargs="+", choices=LEVELS, default=LEVELS)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak-only", action="store_true", help="one step each, and no times")
    parser.add_argument("--save", type=Path, metavar="FOLDER")
    parser.add_argument("--child", choices=LEVELS, help=argparse.SUPPRESS)
    return parser


def _config(name: str, setting: str, batch: int) -> Config:
    overrides = [f"train.checkpoint_activations={setting}", f"data.batch={batch}"]
    overrides += ["train.precision=fp32"]
    overrides += ["train.head_bands=8"] if setting in ("pointwise", "block") else []
    return complete(load_config(name, overrides))


def _model(config: Config) -> tuple[HVAE, Tensor]:
    """The model of a run, and a batch of noise."""
    model = build_model(config, torch.device("cpu"))
    return model, torch.randint(256, (config.data.batch, *model.shape), dtype=torch.uint8)


def _one_step(name: str, setting: str, batch: int) -> dict[str, float]:
    """Takes a step in this process; returns the most it had resident, and what it began with."""
    torch.set_num_threads(1)
    config = _config(name, setting, batch)
    model, x = _model(config)
    stepper = Stepper(model, config.train, config.seed)
    before = _most_resident()
    report = stepper.step(x)
    return {
        "idle_mib": before,
        "peak_mib": _most_resident(),
        "objective": report.objective,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _most_resident() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def _memory(name: str, setting: str, batch: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--config", name, "--batch", str(batch)]
    done = subprocess.run(
        [*command, "--child", setting], stdout=subprocess.PIPE, text=True, check=True
    )
    config = _config(name, setting, batch)
    plan = plan_for(config.model, config.train, batch, torch.device("cpu"), bf16=False)
    found = footprint(config.model, batch, plan)
    return {
        **json.loads(done.stdout),
        "estimated_held_mib": found.held / MIB / batch,
        "estimated_total_mib": found.total / MIB,
        "flops_per_image": found.flops / batch,
    }


def _measure(rows: dict[str, dict[str, Any]], name: str, batch: int, rounds: int) -> None:
    """Adds bytes held, and times of interleaved steps of one model, to the rows."""
    config = _config(name, "none", batch)
    model, x = _model(config)
    plans = {}
    for setting in rows:
        train = _config(name, setting, batch).train
        plans[setting] = plan_for(config.model, train, batch, torch.device("cpu"), bf16=False)

    def passes(setting: str) -> None:
        model.recompute(plans[setting])
        objective(model(x), model.num_dims).backward()
        model.zero_grad()

    _check(model, x, plans)
    times = CpuMeter(sample_ms=0.0).interleaved_ms(
        {setting: lambda s=setting: passes(s) for setting in rows}, rounds
    )
    first = times[next(iter(rows))]
    for setting, row in rows.items():
        ratios = [own / base for own, base in zip(times[setting], first, strict=True)]
        row["step_ms"] = Quantiles.of(times[setting]).p50
        row["ratio"] = Quantiles.of(ratios).p50
        model.recompute(plans[setting])
        row["held_mib"] = _held(model, x) / MIB / batch


def _check(model: HVAE, x: Tensor, plans: dict[str, Any]) -> None:
    """Gradients of a head in bands differ in rounding; everything else must not at all."""
    wanted: list[Tensor] = []
    for setting, plan in plans.items():
        model.recompute(type(plan)(plan.encoder, plan.decoder))
        objective(model(x), model.num_dims).backward()
        got = [p.grad for p in model.parameters() if p.grad is not None]
        model.zero_grad()
        wanted = wanted or got
        assert all(map(torch.equal, got, wanted)), f"the gradients of {setting} differ"


def _held(model: torch.nn.Module, x: Tensor) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = model(x)
    events = profiler.profiler.kineto_results.events()
    total = sum(event.nbytes() for event in events if event.name() == "[memory]")
    del result
    return total


def table(name: str, batch: int, rows: dict[str, dict[str, Any]], where: dict[str, Any]) -> str:
    """The rows as Markdown."""
    columns = ["recomputed", "held MiB/image", "estimate", "peak resident MiB", "step", "GFLOP"]
    lines = [
        f"# Activation checkpointing: {name}, batch {batch}, float32",
        "",
        f"{where['cpu']}, {where['threads']} thread, torch {torch.__version__}, "
        f"{where['commit']}, {where['date']}",
        "",
        f"| {' | '.join(columns)} |",
        f"|{' --- |' * len(columns)}",
    ]
    for setting, row in rows.items():
        held = f"{row['held_mib']:.1f}" if "held_mib" in row else "-"
        step = f"{row['step_ms']:.0f} ms, x{row['ratio']:.2f}" if "ratio" in row else "-"
        lines.append(
            f"| {setting} | {held} | {row['estimated_held_mib']:.1f} | {row['peak_mib']:.0f} | "
            f"{step} | {row['flops_per_image'] / 1e9:.0f} |"
        )
    if name == "vdvae/cifar10":
        lines += ["", f"The published code holds {PUBLISHED_MIB:.0f} MiB per image."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
