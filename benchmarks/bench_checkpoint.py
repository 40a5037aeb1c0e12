"""What checking the hashes of a checkpoint costs, beside reading and writing it.

python benchmarks/bench_checkpoint.py --mib 64 256 --rounds 5 --save benchmarks/results

A checkpoint of random float32 tensors: weights and average of --mib each, and two moments. Wall
time, files in the page cache ("warm") or dropped from it before each round ("cold", as far as the
system obliges). Variants take turns within a round.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from hvae import checkpoint
from hvae.bench.machine import machine
from hvae.bench.measure import CpuMeter, Quantiles, one_thread
from hvae.bench.report import keep
from hvae.checkpoint import saving

MIB = 1 << 20
TENSOR_BYTES = 4 * MIB  # of a convolution with some 340 channels
EMA = ("ema.safetensors",)


@dataclass(frozen=True)
class Row:
    """Time of one action on one checkpoint; bytes are those it has to go through."""

    mib: int
    action: str
    bytes: int
    ms: Quantiles

    @property
    def gb_per_second(self) -> float:
        """Of the median."""
        return self.bytes / self.ms.p50 / 1e6


def tensors_of(mib: int) -> dict[str, dict[str, Tensor]]:
    """The files of a checkpoint whose weights take this many MiB."""
    count = mib * MIB // TENSOR_BYTES
    names = [f"block{i}.weight" for i in range(count)]
    weights = {name: torch.randn(TENSOR_BYTES // 4) for name in names}
    moments = [f"{name}.{moment}" for name in names for moment in ("exp_avg", "exp_inf")]
    return {
        "model": weights,
        "ema": {name: tensor + 1 for name, tensor in weights.items()},
        "optim": {name: torch.randn(TENSOR_BYTES // 4) for name in moments},
    }


@contextmanager
def without_hashes() -> Iterator[None]:
    """Saves as it would be without sha256."""
    with patch.object(saving, "sha256", lambda file: ""):
        yield


def forget(folder: Path) -> None:
    """Drops the files of a folder from the page cache."""
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def timed(action: Callable[[], object]) -> float:
    """Milliseconds of wall time."""
    began = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - began)


def measured(mib: int, rounds: int, parent: Path) -> list[Row]:
    """All actions on a checkpoint of one size, in a folder made for it."""
    tensors = tensors_of(mib)
    run = parent / f"run-{mib}"
    folder = checkpoint.save(run, 0, tensors, {}, keep_last=1)
    files = [folder / f"{stem}.safetensors" for stem in tensors]
    ema, everything = files[1].stat().st_size, sum(file.stat().st_size for file in files)
    step = iter(range(1, 10**6))

    def save() -> None:
        checkpoint.save(parent / "saved", next(step), tensors, {}, keep_last=1)

    def save_without() -> None:
        with without_hashes():
            save()

    def read_all() -> list[bool]:
        """As a resume does it, with a look at every number."""
        return [t.isfinite().all() for f in files for t in checkpoint.read_tensors(f).values()]

    reads: dict[str, tuple[int, Callable[[], object]]] = {
        "hvae.load: hash of the average": (ema, lambda: checkpoint.damage(folder, EMA)),
        "hvae.load: read the average": (ema, lambda: checkpoint.read_tensors(files[1])),
        "resume: hash everything": (everything, lambda: checkpoint.damage(folder)),
        "resume: read everything": (everything, read_all),
    }
    saves: dict[str, tuple[int, Callable[[], object]]] = {
        "save": (everything, save),
        "save without hashes": (everything, save_without),
    }
    actions = {f"{name}, warm": pair for name, pair in reads.items()} | saves
    cold = {f"{name}, cold": pair for name, pair in reads.items()}
    times: dict[str, list[float]] = {name: [] for name in (*actions, *cold)}
    for _ in range(rounds):
        for name, (_, action) in actions.items():
            times[name].append(timed(action))
        for name, (_, action) in cold.items():
            forget(folder)
            times[name].append(timed(action))
    sizes = {name: size for name, (size, _) in (actions | cold).items()}
    return [Row(mib, name, sizes[name], Quantiles.of(ms)) for name, ms in times.items()]


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| weights, MiB | action | p20 ms | p50 ms | p80 ms | GB/s |", "|" + " --- |" * 6]
    lines += [
        f"| {row.mib} | {row.action} | {row.ms.p20:.0f} | {row.ms.p50:.0f} | {row.ms.p80:.0f} "
        f"| {row.gb_per_second:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table, and saves it with what it was measured on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: temporary")
    parser.add_argument("--save", type=Path, help="folder for the .json and .md files")
    args = parser.parse_args()
    with one_thread(), tempfile.TemporaryDirectory(dir=args.folder) as parent:
        rows = [row for mib in args.mib for row in measured(mib, args.rounds, Path(parent))]
        where = machine(CpuMeter())
    text = table(rows)
    print(text)
    if args.save:
        record = {"machine": where, "rows": [asdict(row) for row in rows]}
        title = f"# Checkpoints: {where['cpu']}, one thread, {where['date'][:10]}"
        keep(record, f"{title}\n\n{text}", "checkpoint", args.save)


if __name__ == "__main__":
    main()
