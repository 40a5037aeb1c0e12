"""Rows and meters that stand in for measurements."""

import pytest

from hvae.bench.measure import CpuMeter, Quantiles
from hvae.bench.record import Comparison, Record

MIB = 2**20


@pytest.fixture
def comparison() -> Comparison:
    quantiles = {"eager": 4.0, "compile": 2.0, "fused": 1.0}
    spread = {name: Quantiles(value / 2, value, 2 * value) for name, value in quantiles.items()}
    peaks = {"eager": 3 * MIB, "compile": 2 * MIB, "fused": MIB}
    return Comparison("2x3 float32", spread, spread, peaks, 10**6, 4e9)


@pytest.fixture
def record(comparison: Comparison) -> Record:
    return Record.of("kernels", [comparison], CpuMeter())
