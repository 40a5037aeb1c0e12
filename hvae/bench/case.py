"""A case of a benchmark: one pass of one op on one shape, by several ways of computing it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from hvae.bench.measure import Call, Meter, Quantiles
from hvae.bench.record import Comparison

Shape = tuple[int, int, int, int]

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# How far a baseline in plain operations may lie from the op: half precision is what it computes in.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        label: op, shape, dtype, options and pass, as a reader would write them.
        calls: one pass by each variant, "fused" among them.
        moved_bytes: what the fused op reads and writes.
    """

    label: str
    calls: Mapping[str, Call]
    moved_bytes: int


def label(op: str, shape: Shape, dtype: torch.dtype, *rest: str) -> str:
    """Joins what tells a case from others."""
    return " ".join([op, "x".join(map(str, shape)), str(dtype).removeprefix("torch."), *rest])


def compare(case: Case, meter: Meter, rounds: int) -> Comparison:
    """Measures the variants of a case, interleaved, and a copy of as many bytes."""
    times = meter.interleaved_ms(case.calls, rounds)
    ratios = {
        name: [ours / fused for ours, fused in zip(values, times["fused"], strict=True)]
        for name, values in times.items()
    }
    with_host = meter.with_host()
    host_times = {} if with_host is None else with_host.interleaved_ms(case.calls, rounds)
    return Comparison(
        case=case.label,
        time_ms=_quantiles(times),
        ratio=_quantiles(ratios),
        extra_peak_bytes={name: meter.extra_peak_bytes(call) for name, call in case.calls.items()},
        moved_bytes=case.moved_bytes,
        copy_bytes_per_second=meter.copy_bytes_per_second(max(1, case.moved_bytes // 2)),
        call_ms=_quantiles(host_times) or None,
    )


def _quantiles(figures: Mapping[str, Sequence[float]]) -> dict[str, Quantiles]:
    return {name: Quantiles.of(values) for name, values in figures.items()}
