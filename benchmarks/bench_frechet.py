"""The time of a Frechet distance from two means and covariances, beside other ways to compute it.

python benchmarks/bench_frechet.py --save benchmarks/results

Features are drawn and their statistics made before anything is timed. `cached` has the Cholesky
factor of the reference, as an evaluation against stored statistics does. torchmetrics takes the
eigenvalues of the product of the covariances (`torchmetrics.image.fid`), scipy its matrix root (as
pytorch-fid and clean-fid do). Nothing is reported unless all agree; the variances span two decades
only, because the eigenvalues of a product that spans more lose digits.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
from torchmetrics.image.fid import _compute_fid

from hvae.bench.machine import machine
from hvae.bench.measure import CpuMeter, Quantiles, one_thread
from hvae.bench.report import headline, keep
from hvae.metrics import Statistics, frechet_distance, statistics

AGREEMENT = 1e-9


@dataclass(frozen=True)
class Row:
    """One way at one width: milliseconds per round, and its relative difference from ours."""

    dim: int
    images: int
    way: str
    ms: list[float]
    difference: float


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    rows: list[Row] = []
    with one_thread():
        for dim in args.dims:
            rows += measured(dim, args.images, args.rounds)
        where = machine(CpuMeter())
    text = table(rows, where)
    print(text)
    if args.save:
        keep({"machine": where, "rows": [asdict(row) for row in rows]}, text, "frechet", args.save)


def measured(dim: int, images: int, rounds: int) -> list[Row]:
    """All ways at one width, taking turns."""
    fake, real = (statistics(features(images, dim, seed)) for seed in (1, 2))
    factored = real.factored()
    ways: dict[str, Callable[[], float]] = {
        "hvae": lambda: frechet_distance(fake, real),
        "hvae, cached": lambda: frechet_distance(fake, factored),
        "torchmetrics": lambda: by_torchmetrics(fake, real),
        "scipy sqrtm": lambda: by_scipy(fake, real),
    }
    expected = ways["hvae"]()
    values = dict.fromkeys(ways, expected)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, distance in ways.items():
            began = time.thread_time()
            values[way] = distance()
            times[way].append((time.thread_time() - began) * 1000)
    rows = [Row(dim, images, way, times[way], abs(values[way] / expected - 1)) for way in ways]
    for row in rows:
        if not row.difference <= AGREEMENT:
            sys.exit(f"no figures: {row.way} differs by {row.difference:.1e} at {dim} features")
    return rows


def features(count: int, dim: int, seed: int) -> torch.Tensor:
    """Correlated features whose standard deviations span a decade, at means that differ."""
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(0)).double()
    drawn = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)).double()
    return (drawn * torch.logspace(0, -1, dim).double()) @ mixing / dim**0.5 + 0.1 * seed


def by_torchmetrics(fake: Statistics, real: Statistics) -> float:
    return _compute_fid(real.mean, real.cov, fake.mean, fake.cov).item()


def by_scipy(fake: Statistics, real: Statistics) -> float:
    cov_a, cov_b = fake.cov.numpy(), real.cov.numpy()
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    apart = (fake.mean - real.mean).numpy()
    return float(apart @ apart + np.trace(cov_a) + np.trace(cov_b) - 2 * np.trace(root))


def table(rows: Sequence[Row], where: dict[str, Any]) -> str:
    """Medians, and how many times as long as ours each way takes within a round."""
    lines = [
        headline(where),
        "",
        "| features | images | way | ms | / hvae | / hvae, cached | relative difference |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    times = {(row.dim, row.way): row.ms for row in rows}
    for row in rows:
        ratios = [_ratio(row.ms, times[row.dim, ours]) for ours in ("hvae", "hvae, cached")]
        figures = f"{Quantiles.of(row.ms).p50:.0f} | {ratios[0]} | {ratios[1]}"
        lines.append(f"| {row.dim} | {row.images} | {row.way} | {figures} | {row.difference:.0e} |")
    return "\n".join(lines)


def _ratio(ms: Sequence[float], ours: Sequence[float]) -> str:
    found = Quantiles.of([a / b for a, b in zip(ms, ours, strict=True)])
    return f"{found.p50:.2f} [{found.p20:.2f}, {found.p80:.2f}]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--images", type=int, default=6000, help="of each set, more than features")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep the table and a record")
    return parser


if __name__ == "__main__":
    main()
