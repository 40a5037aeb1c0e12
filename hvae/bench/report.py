"""What a benchmark reports: comparisons with where they were measured, as a table and as JSON."""

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from hvae import _native
from hvae.bench.measure import (
    Call,
    Quantiles,
    copy_bytes_per_second,
    extra_peak_bytes,
    interleaved_ms,
)
from hvae.errors import UserError

MIB = 2**20
# Says where files lie here. That the kernels are loaded goes without saying in a result.
_LOCAL = ("kernels",)


@dataclass(frozen=True)
class Comparison:
    """The variants of one op on one case.

    Attributes:
        case: shape, dtype, options and pass, as a reader would write them.
        time_ms: thread CPU time of a call, by variant.
        ratio: time by the time of the variant "fused" in the same round, by variant.
        extra_peak_bytes: memory held at once beyond the inputs, by variant.
        moved_bytes: what the fused op reads and writes, counted.
        copy_bytes_per_second: of a plain copy on this machine, for comparison.
    """

    case: str
    time_ms: Mapping[str, Quantiles]
    ratio: Mapping[str, Quantiles]
    extra_peak_bytes: Mapping[str, int]
    moved_bytes: int
    copy_bytes_per_second: float

    @property
    def fused_bytes_per_second(self) -> float:
        """The rate at which the fused op moves `moved_bytes`."""
        return self.moved_bytes / (self.time_ms["fused"].p50 / 1000)


def compare(
    case: str, calls: Mapping[str, Call], *, rounds: int, moved_bytes: int, copied_bytes: int
) -> Comparison:
    """Measures the variants of one op, "fused" among them, on one case.

    Args:
        case: as a reader would write it.
        calls: one pass of each variant.
        rounds: interleaved figures per variant.
        moved_bytes: what the fused op reads and writes.
        copied_bytes: size of the plain copy that it is compared with.
    """
    times = interleaved_ms(calls, rounds)
    ratios = {
        name: [ours / fused for ours, fused in zip(values, times["fused"], strict=True)]
        for name, values in times.items()
    }
    return Comparison(
        case=case,
        time_ms={name: Quantiles.of(values) for name, values in times.items()},
        ratio={name: Quantiles.of(values) for name, values in ratios.items()},
        extra_peak_bytes={name: extra_peak_bytes(call) for name, call in calls.items()},
        moved_bytes=moved_bytes,
        copy_bytes_per_second=copy_bytes_per_second(copied_bytes),
    )


def machine() -> dict[str, Any]:
    """Where and with what figures were measured."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "commit": _commit(),
        **{k: v for k, v in _native.build_info().items() if k not in _LOCAL},
    }


def markdown(comparisons: Sequence[Comparison]) -> str:
    """A table with a line per case: medians, and in brackets the 20th and 80th percentile."""
    names = [name for name in comparisons[0].time_ms if name != "fused"]
    head = [
        "case",
        *(f"{name} ms" for name in names),
        "fused ms",
        *(f"{name} / fused" for name in names),
        f"extra peak MiB ({', '.join([*names, 'fused'])})",
        "fused GB/s (of copy)",
    ]
    lines = [head, ["---"] * len(head)]
    for c in comparisons:
        share = c.fused_bytes_per_second / c.copy_bytes_per_second
        lines.append(
            [
                c.case,
                *(f"{c.time_ms[name].p50:.2f}" for name in [*names, "fused"]),
                *(
                    f"{c.ratio[name].p50:.2f} [{c.ratio[name].p20:.2f}, {c.ratio[name].p80:.2f}]"
                    for name in names
                ),
                " / ".join(f"{c.extra_peak_bytes[name] / MIB:.1f}" for name in [*names, "fused"]),
                f"{c.fused_bytes_per_second / 1e9:.1f} ({share:.0%})",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def save(name: str, figures: Sequence[Any], table: str, folder: Path) -> list[Path]:
    """Write `<name>-<date>.json` and `.md` into `folder`; returns the two paths.

    Args:
        name: of the benchmark.
        figures: dataclasses, a line of the table each.
        table: the figures in Markdown.
        folder: made if missing.
    """
    where = machine()
    stem = folder / f"{name}-{where['date'][:10]}"
    folder.mkdir(parents=True, exist_ok=True)
    record = {"machine": where, "comparisons": [asdict(figure) for figure in figures]}
    json_path, table_path = stem.with_suffix(".json"), stem.with_suffix(".md")
    json_path.write_text(json.dumps(record, indent=1) + "\n")
    table_path.write_text(f"{headline(where)}\n\n{table}\n")
    return [json_path, table_path]


def medians(record: Mapping[str, Any]) -> dict[str, float]:
    """Returns milliseconds by case of a saved record: of the fused op, or of the step.

    Raises:
        UserError: if it is no record of a benchmark.
    """
    try:
        return {
            row.get("case") or row["variant"]: row["time_ms"].get("fused", row["time_ms"])["p50"]
            for row in record["comparisons"]
        }
    except (KeyError, TypeError, AttributeError):
        raise UserError("not a record of a benchmark; wanted one that --save wrote") from None


def changes(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """A table of milliseconds before and after, for the cases that both have."""
    lines = ["| case | before ms | now ms | now / before |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {case} | {before[case]:.2f} | {after[case]:.2f} | {after[case] / before[case]:.2f} |"
        for case in after
        if case in before
    ]
    return "\n".join(lines)


def headline(where: Mapping[str, Any]) -> str:
    """One line that says what the figures are and where they come from."""
    return (
        f"{where['cpu']}, {where['threads']} thread, {where['simd']}, torch {where['torch']}, "
        f"commit {where['commit']}, {where['date'][:10]}. Thread CPU time, medians over "
        "interleaved rounds; ratios are taken per round, with their 20th and 80th percentile."
    )


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        output = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return output.stdout.strip()
