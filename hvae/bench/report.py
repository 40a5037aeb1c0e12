"""Records of benchmarks as tables, alone or one beside another."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hvae.bench.measure import Quantiles
from hvae.bench.record import Comparison, Record, SamplingFigures, StepFigures
from hvae.errors import UserError
from hvae.files import write_text

MIB = 2**20


def text(record: Record, before: Record | None = None) -> str:
    """A record in Markdown: where it was measured, its table, and what changed since `before`.

    Raises:
        UserError: the two records are of different benchmarks.
    """
    parts = [headline(record.machine), table(record)]
    if before is not None:
        check_comparable(before, record.what)
        parts += [f"Before: {headline(before.machine)}", changes(before, record)]
    return "\n\n".join(parts)


def save(record: Record, name: str, folder: Path) -> list[Path]:
    """Write `<name>-<date>.json` and `.md` into `folder`, made if missing; returns both paths."""
    return keep(record.as_json(), text(record), name, folder)


def keep(record: Mapping[str, Any], table: str, name: str, folder: Path) -> list[Path]:
    """The same for a study with a table of its own; its `machine` says when it was made."""
    stem = f"{name}-{record['machine']['date'][:10]}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}.json", folder / f"{stem}.md"]
    write_text(paths[0], json.dumps(record, indent=1) + "\n")
    write_text(paths[1], table + "\n")
    return paths


def headline(where: Mapping[str, Any]) -> str:
    """One line that says what the figures are and where they come from."""
    gpu = where.get("gpu")
    if gpu:
        clocks = f"SM clock {gpu['sm_clock_mhz']} of {gpu['max_sm_clock_mhz']} MHz"
        device = f"{gpu['name']}, {clocks}, driver {gpu['driver']}, CUDA {where['torch_cuda']}"
    else:
        device = f"{where['cpu']}, {where['threads']} thread, {where['simd']}"
    return (
        f"{device}, torch {where['torch']}, commit {where['commit']}, {where['date'][:10]}. "
        f"{where.get('clock', 'Thread CPU time')}, medians over interleaved rounds; ratios are "
        "taken per round, with their 20th and 80th percentile."
    )


def table(record: Record) -> str:
    """The rows of a record in Markdown: medians, ratios with 20th and 80th percentile."""
    return _markdown(*_LAYOUTS[record.what](record.rows))


def check_comparable(before: Record, what: str) -> None:
    """Raise UserError unless a record is of the benchmark `what`."""
    if before.what != what:
        raise UserError(f"the older record is of {before.what}, not of {what}")


def changes(before: Record, after: Record) -> str:
    """A table of milliseconds before and after, for the rows that both have."""
    old = {row.label: row.ms for row in before.rows}
    lines = [
        [row.label, _ms(old[row.label]), _ms(row.ms), f"{row.ms / old[row.label]:.2f}"]
        for row in after.rows
        if row.label in old
    ]
    if not lines:
        return "None of these cases is in the older record."
    return _markdown(["case", "before ms", "now ms", "now / before"], lines)


def _comparisons(rows: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    names = [name for name in rows[0].time_ms if name != "fused"]
    every = [*names, "fused"]
    calls = any(row.call_ms for row in rows)
    head = [
        "case",
        *(f"{name} ms" for name in every),
        *(f"{name} / fused" for name in names),
        *([f"ms with the host's part ({', '.join(every)})"] * calls),
        f"extra peak MiB ({', '.join(every)})",
        "fused GB/s (of copy)",
    ]
    lines = []
    for row in rows:
        call_ms = [_ms(row.call_ms[name].p50) for name in every] if row.call_ms else []
        rate = row.fused_bytes_per_second
        lines.append(
            [
                row.case,
                *(_ms(row.time_ms[name].p50) for name in every),
                *(_ratio(row.ratio[name]) for name in names),
                *([" / ".join(call_ms)] * calls),
                " / ".join(f"{row.extra_peak_bytes[name] / MIB:.1f}" for name in every),
                f"{rate / 1e9:.1f} ({rate / row.copy_bytes_per_second:.0%})",
            ]
        )
    return head, lines


def _steps(rows: Sequence[StepFigures]) -> tuple[list[str], list[list[str]]]:
    head = ["variant", "parameters", "batch", "step ms", "/ vdvae"]
    head += ["saved MiB", "peak held MiB", "idle"]
    lines = [
        [
            row.variant,
            f"{row.parameters:,}",
            str(row.batch),
            _ms(row.time_ms.p50),
            _ratio(row.ratio, 3),
            *(f"{b / MIB:.0f}" for b in (row.saved_bytes, row.resident_bytes, row.idle_bytes)),
        ]
        for row in rows
    ]
    return head, lines


def _sampling(rows: Sequence[SamplingFigures]) -> tuple[list[str], list[list[str]]]:
    head = ["variant", "batch", "ms per image", "images per second", "/ with kernels"]
    lines = [
        [
            row.variant,
            str(row.batch),
            _ms(row.time_ms.p50 / row.batch),
            f"{1000 * row.batch / row.time_ms.p50:.1f}",
            _ratio(row.ratio, 3),
        ]
        for row in rows
    ]
    return head, lines


_LAYOUTS: Mapping[str, Any] = {"kernels": _comparisons, "step": _steps, "sampling": _sampling}


def _ms(value: float) -> str:
    return f"{value:.2f}" if value >= 1 else f"{value:.4f}"


def _ratio(ratio: Quantiles, digits: int = 2) -> str:
    p20, p50, p80 = (f"{value:.{digits}f}" for value in (ratio.p20, ratio.p50, ratio.p80))
    return f"{p50} [{p20}, {p80}]"


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])
