"""`hvae bench`: its table, its record, and what it refuses."""

import json

import pytest

from hvae.bench import kernels, training_step
from hvae.bench.measure import Quantiles
from hvae.bench.report import Comparison
from hvae.bench.training_step import StepFigures


def comparison(fused_ms: float) -> Comparison:
    times = {"eager": Quantiles(4.0, 5.0, 6.0), "fused": Quantiles(fused_ms, fused_ms, fused_ms)}
    return Comparison("2x3 float32", times, times, {"eager": 2, "fused": 1}, 10**6, 4e9)


@pytest.fixture
def measured(monkeypatch):
    """Makes the next kernel benchmark find a given time."""

    def make(fused_ms):
        monkeypatch.setattr(kernels, "run", lambda *_: iter([comparison(fused_ms)]))

    return make


def test_a_record_is_kept_and_compared_with(cli, measured, tmp_path):
    file = tmp_path / "old.json"
    measured(2.0)
    first = cli("bench", "--save", file)
    assert first.exit_code == 0, first.stderr
    assert "| 2x3 float32 | 5.00 | 2.00 |" in first.stdout
    assert json.loads(file.read_text())["comparisons"][0]["case"] == "2x3 float32"
    measured(1.0)
    second = cli("bench", "kernels", "--compare", file)
    assert "| 2x3 float32 | 2.00 | 1.00 | 0.50 |" in second.stdout


def test_a_step_is_measured_and_printed_as_json(cli, monkeypatch):
    spread = Quantiles(1.0, 2.0, 3.0)
    figures = [StepFigures("vdvae", 7, spread, spread, 1, 2, 3)]
    monkeypatch.setattr(training_step, "run", lambda rounds: figures)
    record = json.loads(cli("bench", "step", "--json").stdout)
    assert record["comparisons"][0]["variant"] == "vdvae"


def test_an_op_that_fails_its_check_has_no_figures(cli, monkeypatch):
    def fail(*_):
        raise AssertionError("z differs")
        yield

    monkeypatch.setattr(kernels, "run", fail)
    result = cli("bench")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no figures: z differs" in result.stderr


@pytest.mark.parametrize("content", ["{}", '{"comparisons": [1]}', '{"comparisons": [{}]}'])
def test_a_record_of_something_else_is_refused_before_anything_is_measured(
    cli, monkeypatch, tmp_path, content
):
    file = tmp_path / "other.json"
    file.write_text(content)
    monkeypatch.setattr(kernels, "run", pytest.fail)
    result = cli("bench", "--compare", file)
    assert result.exit_code == 2
    assert "not a record of a benchmark" in result.stderr


def test_an_unknown_dtype_is_refused(cli):
    result = cli("bench", "--dtype", "int8")
    assert result.exit_code == 2
    assert "wanted float32 or bfloat16" in result.stderr
