"""The study of the objective: seconds-long runs, a table, and nothing trained twice."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from hvae.training.step import Stepper

FILE = Path(__file__).parents[2] / "benchmarks" / "objective_study.py"
SMALL = (
    "small", "model.encoder=14x1,14d2,7x1", "model.decoder=7x1,14m7", "model.width=8",
    "model.widths={7: 8}", "model.z_channels=2", "model.likelihood.mixtures=1", "eval.batch=500",
)  # fmt: skip


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("objective_study", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_runs_end_in_a_table_and_are_not_repeated(study, tmp_path, capsys, monkeypatch):
    arguments = [
        "--images", "32", "--seeds", "0", "1", "--settings", "plain", "--variants", "small",
        "--define", *SMALL, "--runs", str(tmp_path / "runs"), "--save", str(tmp_path / "out"),
    ]  # fmt: skip
    study.main(arguments)
    first = capsys.readouterr().out
    rows = [line for line in first.splitlines() if line.startswith("| small | ")]
    assert len(rows) == 1
    assert " | plain | 2 | " in rows[0]
    assert " ± " in rows[0]
    (table,) = (tmp_path / "out").glob("objective_study-*.md")
    assert table.read_text() == first
    (record,) = (tmp_path / "out").glob("objective_study-*.json")
    runs = json.loads(record.read_text())["runs"]
    assert [run["seed"] for run in runs] == [0, 1]
    assert all(len(run["kl_per_group"]) == 2 for run in runs)

    monkeypatch.delattr(Stepper, "step")
    study.main(arguments)
    assert rows[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--settings", "plian"], "no table: no 'plian'; there are plain, warm-up"),
        (["--variants", "base", "huge"], "no table: no 'huge'; there are base, ladder"),
        (["--define", "huge", "model.width=300", "--variants", "huge"], "wanted at most 300,000"),
    ],
)
def test_wrong_use_is_one_line(study, tmp_path, arguments, message):
    with pytest.raises(SystemExit) as caught:
        study.main([*arguments, "--images", "16", "--runs", str(tmp_path / "runs")])
    assert message in str(caught.value.code)


@pytest.mark.parametrize("variant", ["base", "ladder"])
def test_models_of_the_study_are_small(study, tmp_path, variant):
    config = study._config(study.VARIANTS[variant], "plain", 0, 100, tmp_path)
    assert study._parameters(config) <= study.MOST_PARAMETERS
    assert {"plain", "warm-up", "free-bits", "kl-share", "beta-0.5", "beta-4"} <= set(
        study.SETTINGS
    )
