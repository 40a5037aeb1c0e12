"""Training steps of shipped configurations, eager, compiled and as a CUDA graph: time, memory, MFU.

python benchmarks/bench_configs.py --save benchmarks/results
python benchmarks/bench_configs.py --configs cifar10 --modes eager regional --batch 1 --threads 1

Steps are those of `hvae train`, optimiser, average and guard included, on noise that is already on
the device. Each row is a process of its own, since one mode's memory and compilers would show in
another's. MFU is the arithmetic of forward and backward, without what is recomputed, over what
square matrix products of the same precision reach here. Wall time: one row after another, so a load
that comes and goes falls on some of them.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hvae.bench.device import choose_device, model_meter
from hvae.bench.machine import machine
from hvae.bench.measure import Quantiles
from hvae.bench.report import keep
from hvae.training import load_config
from hvae.training.build import build_model, complete
from hvae.training.footprint import footprint
from hvae.training.memory import peak_memory_mib
from hvae.training.precision import uses_bf16
from hvae.training.step import Stepper

CONFIGS = ("cifar10", "imagenet_64", "ffhq_256", "ffhq_1024")
MODES = {
    "eager": [],
    "regional": ["train.compile=regional"],
    "compiled": ["train.compile=true"],
    "eager, graph": ["train.cuda_graphs=true"],
    "regional, graph": ["train.compile=regional", "train.cuda_graphs=true"],
    "compiled, graph": ["train.compile=true", "train.cuda_graphs=true"],
}
_MATRIX = {"cuda": 8192, "cpu": 2048}


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    device = choose_device(args.device)
    if args.child:
        settings = [args.configs[0], args.modes[0], device]
        print(json.dumps(_steps(*settings, args.batch, args.steps, args.threads)))
        return
    rows = []
    for name in args.configs:
        for mode in args.modes or [m for m in MODES if device == "cuda" or "graph" not in m]:
            rows.append(_in_a_process(name, mode, device, args))
            print(_line(rows[-1]), flush=True)
    where = machine(model_meter(device))
    place = (where["gpu"] or {}).get("name") or where["cpu"]
    title = f"# Training steps: {place}, torch {where['torch']}, {where['commit']}, {where['date']}"
    columns = ["configuration", "mode", "batch", "first step s", "step ms", "images/s"]
    columns += ["peak GiB", "TFLOP/s", "MFU"]
    head = [title, "", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    text = "\n".join([*head, *map(_line, rows)])
    print(text)
    if args.save:
        keep({"machine": where, "rows": rows}, text, "configs", args.save)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configs", nargs="+", default=CONFIGS, metavar="NAME")
    parser.add_argument("--modes", nargs="+", choices=MODES, help="default: all the device has")
    parser.add_argument("--batch", type=int, help="images of a step; default: the configuration's")
    parser.add_argument("--steps", type=int, default=10, help="that are timed, after three others")
    parser.add_argument("--threads", type=int, help="of a CPU; default: all cores")
    parser.add_argument("--device", help="cpu or cuda; default: a GPU if there is one")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep JSON and table there")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser


def _in_a_process(name: str, mode: str, device: str, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of a row, or why there are none."""
    command = [sys.executable, __file__, "--child", "--configs", name, "--modes", mode]
    command += ["--device", device, "--steps", str(args.steps)]
    command += ["--batch", str(args.batch)] if args.batch else []
    command += ["--threads", str(args.threads)] if args.threads else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    row = {"config": name, "mode": mode}
    if done.returncode:
        return {**row, "failed": done.stderr.strip().splitlines()[-1]}
    return {**row, **json.loads(done.stdout.splitlines()[-1])}


def _steps(
    name: str, mode: str, device: str, batch: int | None, steps: int, threads: int | None
) -> dict[str, Any]:
    if threads:
        torch.set_num_threads(threads)
    overrides = [*MODES[mode], *([f"data.batch={batch}"] if batch else [])]
    config = complete(load_config(name, overrides))
    size, place = config.data.batch, torch.device(device)
    stepper = Stepper(build_model(config, place), config.train, config.seed)
    x = torch.randint(256, (size, *stepper.model.shape), dtype=torch.uint8, device=place)
    seconds = [_timed(stepper, x) for _ in range(3 + steps)]
    peak = peak_memory_mib(place)  # before the products, which are no part of a step
    bf16 = uses_bf16(config.train, place)
    step = Quantiles.of(seconds[3:])
    flops = footprint(config.model, size, bf16=bf16).flops
    most = _matmul_flops(place, torch.bfloat16 if bf16 else torch.float32)
    return {
        "batch": size,
        "precision": "bf16" if bf16 else "fp32",
        "first_step_s": seconds[0],
        "step_s": [step.p20, step.p50, step.p80],
        "images_per_second": size / step.p50,
        "peak_mib": peak,
        "flops_per_second": flops / step.p50,
        "matmul_flops_per_second": most,
        "mfu": flops / step.p50 / most,
    }


def _timed(stepper: Stepper, x: torch.Tensor) -> float:
    began = time.perf_counter()
    stepper.step(x)  # ends with a number on the host
    if x.is_cuda:
        torch.cuda.synchronize()  # the optimiser
    return time.perf_counter() - began


def _matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Arithmetic per second of square matrix products, the median of ten."""
    side = _MATRIX[device.type]
    a = torch.randn(side, side, device=device).to(dtype)
    times = []
    for _ in range(13):
        began = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 2 * side**3 / Quantiles.of(times[3:]).p50


def _line(row: dict[str, Any]) -> str:
    name = [row["config"], row["mode"]]
    if "failed" in row:
        cells = [*name, row["failed"].replace("|", "/"), *[""] * 6]
    else:
        p20, p50, p80 = (1000 * seconds for seconds in row["step_s"])
        cells = [
            *name,
            f"{row['batch']}, {row['precision']}",
            f"{row['first_step_s']:.1f}",
            f"{p50:.1f} [{p20:.1f}, {p80:.1f}]",
            f"{row['images_per_second']:.3g}",
            f"{row['peak_mib'] / 1024:.1f}",
            f"{row['flops_per_second'] / 1e12:.3g}",
            f"{row['mfu']:.0%}",
        ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
