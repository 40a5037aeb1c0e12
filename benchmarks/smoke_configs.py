"""What the shipped configurations take: a smoke run of each, in a process of its own, one table.

python benchmarks/smoke_configs.py --save benchmarks/results
python benchmarks/smoke_configs.py --configs own_images_256 own_images_1024

Memory is the peak of the process after two steps of one image, with Python and its libraries where
it is a CPU's; seconds are wall time and follow what else the machine does. Fashion-MNIST's
configurations are left out where it is not installed, since they take their size from it.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hvae.bench.device import choose_device, model_meter
from hvae.bench.machine import machine
from hvae.bench.report import keep
from hvae.training.config_file import list_configs

_HEAD = """\
| configuration | images | parameters | groups | steps | peak after them | peak of all |
| --- | --- | --- | --- | --- | --- | --- |"""


def main() -> None:
    """Runs, prints the table as it grows, and keeps it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [name for name, _ in list_configs()]
    parser.add_argument("--configs", nargs="+", default=names, choices=names, metavar="NAME")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep JSON and table there")
    args = parser.parse_args()

    print(_HEAD, flush=True)
    records, lines = [], [_HEAD]
    for name in args.configs:
        record = _smoke(name)
        if record is not None:
            records.append(record)
            lines.append(_line(name, record))
            print(lines[-1], flush=True)
    if args.save:
        where = machine(model_meter(choose_device(None)))
        threads = os.environ.get("OMP_NUM_THREADS", "all")
        place = f"{where['gpu'] or where['cpu']}, torch {where['torch']}, {threads} threads"
        text = "\n".join([f"Smoke runs: {place}, {records[0]['device']}", "", *lines])
        content = {"machine": where, "threads": threads, "runs": records}
        keep(content, text, "smoke_configs", args.save)


def _smoke(name: str) -> dict[str, Any] | None:
    """The record of a smoke run; None, and its message on stderr, where it fails."""
    command = [sys.executable, "-m", "hvae", "train", name, "--smoke", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name}: {done.stderr.splitlines()[-1]}", file=sys.stderr)
        return None
    return {"config": name, **json.loads(done.stdout)}


def _line(name: str, record: dict[str, Any]) -> str:
    channels, *sides = record["shape"]
    steps = ", ".join(f"{seconds:.2f} s" for seconds in record["step_seconds"])
    cells = (
        name,
        " x ".join(map(str, (*sides, channels))),
        f"{record['parameters'] / 1e6:.1f} M",
        str(record["groups"]),
        steps,
        f"{record['step_memory_mib'] / 1024:.1f} GiB",
        f"{record['memory_mib'] / 1024:.1f} GiB",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
