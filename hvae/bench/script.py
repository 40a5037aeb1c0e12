"""What the scripts in benchmarks/ share: their options, and one call that measures and reports."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hvae.bench import kernels, report, sampling, training_step
from hvae.bench.case import DTYPES
from hvae.bench.device import choose_device, kernel_meter, model_meter
from hvae.bench.record import Record
from hvae.errors import HvaeError


def main(name: str, ops: Sequence[str] = (), arguments: Sequence[str] | None = None) -> None:
    """Measure and print; with `--save`, keep the record and its table as `<name>-<date>`.

    Args:
        name: "training_step" or "sampling"; any other name is one for the kernels `ops`.
        ops: fused ops, with all their shapes where none is asked for.
        arguments: instead of those of the command line.
    """
    parser = argparse.ArgumentParser(description=f"Speed and memory: {name.replace('_', ' ')}")
    if ops:
        parser.add_argument("--shape", nargs="+", metavar="OP:NxCxHxW", default=())
        parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=("float32", "bfloat16"))
    if name == "training_step":
        parser.add_argument("--compiled", action="store_true", help="also under torch.compile")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=15 if ops else 9)
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep JSON and table there")
    args = parser.parse_args(arguments)
    try:
        record = _measured(name, ops, args)
    except (HvaeError, AssertionError) as error:
        sys.exit(f"no figures: {error}")
    print(report.text(record))
    if args.save:
        report.save(record, name, args.save)


def _measured(name: str, ops: Sequence[str], args: argparse.Namespace) -> Record:
    device = choose_device(args.device)
    if ops:
        shapes = kernels.parse_shapes(args.shape) or kernels.all_shapes(ops, device)
        dtypes = [DTYPES[dtype] for dtype in args.dtype]
        meter = kernel_meter(device)
        return Record.of("kernels", list(kernels.run(meter, dtypes, shapes, args.rounds)), meter)
    meter = model_meter(device)
    if name == "sampling":
        return Record.of("sampling", sampling.run(meter, args.rounds), meter)
    variants = training_step.variant_names(compiled=args.compiled)
    return Record.of("step", training_step.run(meter, args.rounds, variants), meter)
