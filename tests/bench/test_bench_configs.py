"""The benchmark of training steps: a row for each mode, and the reason where there is none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "bench_configs.py"


def test_rows_are_figures_or_reasons(tmp_path):
    command = [sys.executable, str(FILE), "--configs", "fashion_mini", "--device", "cpu"]
    command += ["--modes", "eager", "eager, graph", "--batch", "1", "--steps", "1"]
    done = subprocess.run(
        [*command, "--threads", "1", "--save", str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (record,) = tmp_path.glob("configs-*.json")
    eager, graph = json.loads(record.read_text())["rows"]
    assert 0 < eager["mfu"] < 1
    assert eager["images_per_second"] == pytest.approx(1 / eager["step_s"][1])
    assert eager["peak_mib"] > 100
    assert "CUDA" in graph["failed"]
    assert done.stdout.count("| fashion_mini | eager, graph | ") == 2  # as it came, in the table
