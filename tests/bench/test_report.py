"""Records as tables, kept and read again, one beside another."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hvae.bench import report
from hvae.bench.measure import Quantiles
from hvae.bench.record import Record, SamplingFigures, StepFigures
from hvae.errors import UserError

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks/results"
# Studies beside them keep tables of their own.
RECORDS = sorted(file for file in RESULTS.glob("*.json") if '"comparisons"' in file.read_text())
SPREAD = Quantiles(10.0, 20.0, 30.0)
GPU = {
    "name": "Fast GPU",
    "driver": "1.2",
    "sm_clock_mhz": "900",
    "max_sm_clock_mhz": None,
}


def test_the_table_gives_medians_and_spread(record):
    assert report.table(record).splitlines()[-1] == (
        "| 2x3 float32 | 4.00 | 2.00 | 1.00 | 4.00 [2.00, 8.00] | 2.00 [1.00, 4.00] "
        "| 3.0 / 2.0 / 1.0 | 1.0 (25%) |"
    )


def test_the_hosts_part_stands_in_a_column_of_its_own(record, comparison):
    short = {name: Quantiles(0.01, 0.02, 0.03) for name in comparison.time_ms}
    with_host = replace(comparison, case="with host", call_ms=short)
    *_, without, with_it = report.table(replace(record, rows=[comparison, with_host])).splitlines()
    assert "| 0.0200 / 0.0200 / 0.0200 |" in with_it
    assert without.count("|") == with_it.count("|")


def test_a_step_and_a_batch_of_samples_have_their_figures(record):
    step = StepFigures("hvae", 1234, SPREAD, SPREAD, 2**20, 3 * 2**20, 2 * 2**20)
    line = report.table(replace(record, what="step", rows=[step])).splitlines()[-1]
    assert line == "| hvae | 1,234 | 8 | 20.00 | 20.000 [10.000, 30.000] | 1 | 3 | 2 |"
    sampling = SamplingFigures("hvae", 16, SPREAD, SPREAD)
    line = report.table(replace(record, what="sampling", rows=[sampling])).splitlines()[-1]
    assert line == "| hvae | 16 | 1.25 | 800.0 | 20.000 [10.000, 30.000] |"


def test_results_are_saved_with_their_machine(record, tmp_path):
    json_path, table_path = report.save(record, "op", tmp_path / "new")
    stored = json.loads(json_path.read_text())
    assert stored["machine"]["torch"] == torch.__version__
    assert stored["comparisons"][0]["ratio"]["eager"] == {"p20": 2.0, "p50": 4.0, "p80": 8.0}
    assert report.table(record) in table_path.read_text()
    again = Record.read(json_path)
    assert (again.what, again.rows) == (record.what, record.rows)


def test_the_headline_of_a_device_names_it(record):
    line = report.headline({**record.machine, "gpu": GPU, "clock": "Device time"})
    assert line.startswith("Fast GPU, SM clock 900 of None MHz, driver 1.2, CUDA ")
    assert "Device time, medians" in line


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: file.stem)
def test_kept_records_can_be_read(file):
    assert report.text(Record.read(file))


def test_changes_are_those_of_the_rows_that_both_have(record, comparison):
    slower = {"eager": SPREAD, "fused": SPREAD}
    other = replace(comparison, case="another")
    after = replace(record, rows=[replace(comparison, time_ms=slower), other])
    lines = report.changes(record, after).splitlines()
    assert lines[2:] == ["| 2x3 float32 | 1.00 | 20.00 | 20.00 |"]


def test_records_without_a_common_row_say_so(record, comparison):
    other = replace(record, rows=[replace(comparison, case="another")])
    assert report.text(record, other).endswith("None of these cases is in the older record.")


def test_records_of_different_benchmarks_are_refused(record):
    sampling = Record("sampling", record.machine, [SamplingFigures("hvae", 1, SPREAD, SPREAD)])
    with pytest.raises(UserError, match="the older record is of sampling, not of kernels"):
        report.text(record, sampling)


@pytest.mark.parametrize(
    "stored", ["{}", '{"comparisons": []}', '{"comparisons": [{}], "machine": {}}']
)
def test_another_file_is_no_record(tmp_path, stored):
    file = tmp_path / "other.json"
    file.write_text(stored)
    with pytest.raises(UserError, match=r"other.json is not a record of a benchmark"):
        Record.read(file)
