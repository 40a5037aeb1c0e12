"""`hvae bench`: its table, its record, and what it refuses."""

import json

import pytest
import torch

from hvae.bench import kernels, sampling, training_step
from hvae.bench.measure import CpuMeter, Quantiles
from hvae.bench.record import Comparison, Record, SamplingFigures, StepFigures

SPREAD = Quantiles(1.0, 2.0, 3.0)


def comparison(fused_ms: float) -> Comparison:
    times = {"eager": Quantiles(4.0, 5.0, 6.0), "fused": Quantiles(fused_ms, fused_ms, fused_ms)}
    return Comparison("2x3 float32", times, times, {"eager": 2, "fused": 1}, 10**6, 4e9)


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


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


def test_options_reach_the_measurement(cli, monkeypatch):
    asked = []

    def run(*arguments):
        asked.extend(arguments)
        return iter([comparison(1.0)])

    monkeypatch.setattr(kernels, "run", run)
    options = ["--shape", "2x3x4x5", "--shape", "logistic_mixture_sample:1x1x2x2"]
    done = cli("bench", *options, "--dtype", "float16", "--device", "cpu", "--rounds", 3)
    assert done.exit_code == 0, done.stderr
    meter, dtypes, shapes, rounds = asked
    assert isinstance(meter, CpuMeter)
    assert (dtypes, rounds) == ([torch.float16], 3)
    assert shapes == {
        "gaussian_latent": [(2, 3, 4, 5)],
        "logistic_mixture_sample": [(1, 1, 2, 2)],
    }


def test_a_step_is_measured_and_printed_as_json(cli, monkeypatch):
    figures = [StepFigures("vdvae", 7, SPREAD, SPREAD, 1, 2, 3)]
    asked = []

    def run(meter, rounds, variants):
        asked.append(variants)
        return figures

    monkeypatch.setattr(training_step, "run", run)
    record = json.loads(cli("bench", "step", "--json").stdout)
    assert record["comparisons"][0]["variant"] == "vdvae"
    assert record["what"] == "step"
    cli("bench", "step", "--compiled")
    assert [names.count("hvae compiled") for names in asked] == [0, 1]


def test_compiled_is_for_the_step(cli):
    result = cli("bench", "sampling", "--compiled")
    assert result.exit_code == 2
    assert "--compiled is for step, got sampling" in result.stderr


def test_sampling_is_measured_in_images_per_second(cli, monkeypatch, tmp_path):
    figures = [SamplingFigures("hvae", 16, SPREAD, SPREAD)]
    monkeypatch.setattr(sampling, "run", lambda meter, rounds: figures)
    file = tmp_path / "sampling.json"
    done = cli("bench", "sampling", "--save", file)
    assert "| hvae | 16 | 0.1250 | 8000.0 | 2.000 [1.000, 3.000] |" in done.stdout
    assert Record.read(file).rows == figures


def test_an_op_that_fails_its_check_has_no_figures(cli, monkeypatch):
    def fail(*_):
        raise AssertionError("z differs")
        yield

    monkeypatch.setattr(kernels, "run", fail)
    result = cli("bench")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no figures: z differs" in result.stderr


def test_a_record_of_something_else_is_refused_before_anything_is_measured(
    cli, monkeypatch, tmp_path
):
    file = tmp_path / "other.json"
    file.write_text('{"comparisons": [1]}')
    monkeypatch.setattr(kernels, "run", pytest.fail)
    result = cli("bench", "--compare", file)
    assert result.exit_code == 2
    assert "not a record of a benchmark" in result.stderr


def test_a_record_of_another_benchmark_is_refused_before_anything_is_measured(
    cli, measured, monkeypatch, tmp_path
):
    file = tmp_path / "kernels.json"
    measured(2.0)
    cli("bench", "--save", file)
    monkeypatch.setattr(sampling, "run", pytest.fail)
    result = cli("bench", "sampling", "--compare", file)
    assert result.exit_code == 2
    assert "the older record is of kernels, not of sampling" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dtype", "int8"], "--dtype: wanted float32, bfloat16, float16; got int8"),
        (["--shape", "3x4"], "--shape: wanted [OP:]NxCxHxW such as 32x16x64x64, got 3x4"),
        (["step", "--shape", "1x1x1x1"], "--shape and --dtype are for kernels"),
        (["sampling", "--dtype", "float16"], "--shape and --dtype are for kernels"),
        (["--device", "cuda"], "--device cuda: torch finds no CUDA device"),
        (["--device", "tpu"], "--device: wanted cpu or cuda, got tpu"),
    ],
)
def test_wrong_options_are_refused_in_one_line(cli, monkeypatch, options, message):
    monkeypatch.setattr(kernels, "run", pytest.fail)
    result = cli("bench", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
