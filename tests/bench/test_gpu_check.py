"""`make gpu-check` on machines that lack things: what its record says of each step."""

import importlib.util
import json
import os
import stat
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PROBED = {"gpu": "NVIDIA Test GPU", "capability": "9.0", "torch": "2.11"}

CLEAN = """\
========= COMPUTE-SANITIZER
logistic_mixture_sample has no kernel for cuda: left out
all 80 calls ran
========= ERROR SUMMARY: 0 errors
"""
CLEAN_RACES = """\
all 80 calls ran
========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)
"""
FOUND = """\
========= Invalid __global__ write of size 4 bytes
=========     at gaussian_latent_kernel+0x70
=========         Host Frame: not supported in libtorch_cuda.so
all 80 calls ran
========= ERROR SUMMARY: 1 error
"""
REFUSED = """\
========= COMPUTE-SANITIZER
========= Error: Device not supported. Please refer to the "Supported Devices" section
RuntimeError: CUDA error: unknown error
========= ERROR SUMMARY: 1 error
"""
REFUSED_BUT_RAN = """\
========= Error: Failed to initialize WDDM debugger interface.
========= Error: Device not supported.
all 80 calls ran
========= ERROR SUMMARY: 2 errors
"""
RACE = """\
========= Error: Race reported between Write access at kernel+0x70
all 80 calls ran
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""
UNKNOWN = """\
========= Something else is wrong
all 80 calls ran
========= ERROR SUMMARY: 3 errors
"""
SILENT = "all 80 calls ran\n"
UNFINISHED = "========= ERROR SUMMARY: 0 errors\n"


def load(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


gpu_check = load("gpu_check")


@pytest.fixture(autouse=True)
def work(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_check, "WORK", tmp_path / "work")
    monkeypatch.setattr(gpu_check, "SITE", tmp_path / "site")
    return tmp_path / "work"


@pytest.fixture
def sanitizer(monkeypatch, tmp_path):
    """Puts a compute-sanitizer on PATH that prints a text, or does something else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(gpu_check, "SANITIZER_FOLDERS", ())

    def make(text, status=0, then=":"):
        tool = folder / "compute-sanitizer"
        (folder / "text").write_text(text)
        tool.write_text(f"#!/bin/sh\ncat {folder}/text\n{then}\nexit {status}\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)

    return make


def step_named(name, limit_s=None):
    step = next(step for step in gpu_check.steps(PROBED) if step.name == name)
    return step if limit_s is None else replace(step, limit_s=limit_s)


def shell(name, program, judge=gpu_check.judge_plain, **options):
    return gpu_check.Step(name, ["sh", "-c", program], 20, judge, **options)


@pytest.mark.parametrize(
    ("text", "status", "wanted", "reason"),
    [
        (CLEAN, 0, "ok", "0 errors; all 80 calls ran; logistic_mixture_sample has no kernel"),
        (CLEAN_RACES, 0, "ok", "0 hazards displayed"),
        (FOUND, 99, "failed", "Invalid __global__ write of size 4 bytes; 1 error"),
        (FOUND, 0, "failed", "Invalid __global__ write"),
        (REFUSED, 1, "skipped", "Error: Device not supported"),
        (REFUSED, 99, "skipped", "Error: Device not supported"),
        (REFUSED_BUT_RAN, 1, "skipped", "Error: Failed to initialize"),
        (RACE, 99, "failed", "Race reported between Write access at kernel+0x70; 1 hazard"),
        (UNKNOWN, 99, "failed", "exit status 99: 3 errors"),
        (CLEAN + REFUSED, 0, "skipped", "Error: Device not supported"),
        (SILENT, 0, "failed", "exit status 0: all 80 calls ran"),
        (UNFINISHED, 0, "failed", "exit status 0, and not all calls ran"),
        (CLEAN, 1, "failed", "exit status 1"),
        ("", 1, "failed", "exit status 1: no output"),
    ],
)
def test_a_sanitizer_is_clean_only_if_it_watched_all_calls(sanitizer, text, status, wanted, reason):
    sanitizer(text, status)
    verdict = gpu_check.run(step_named("memcheck"), 60)
    assert verdict.status == wanted
    assert reason in verdict.reason


def test_a_missing_sanitizer_is_skipped(sanitizer):
    verdict = gpu_check.run(step_named("racecheck"), 60)
    assert (verdict.status, verdict.reason) == ("skipped", "compute-sanitizer is not on PATH")


@pytest.mark.parametrize(("text", "status"), [("", "skipped"), (FOUND, "failed")])
def test_a_slow_sanitizer_is_skipped_unless_it_found_something(sanitizer, text, status):
    sanitizer(text, then="sleep 60")
    verdict = gpu_check.run(step_named("initcheck", limit_s=0.5), 60)
    assert (verdict.status, verdict.reason) == (status, "timed out after 0 s")


def test_a_step_out_of_time_fails_and_leaves_no_process(tmp_path):
    step = replace(shell("slow", f"(sleep 2; touch {tmp_path}/late) & wait"), limit_s=0.5)
    verdict = gpu_check.run(step, 60)
    assert (verdict.status, verdict.reason) == ("failed", "timed out after 0 s")
    time.sleep(2.5)
    assert not (tmp_path / "late").exists()


def test_results_are_written_whatever_becomes_of_the_steps(tmp_path):
    record = tmp_path / "work/bench.json"
    listed = [
        shell("good", "true"),
        shell("bad", "echo first; echo no such kernel >&2; exit 3"),
        gpu_check.Step("absent", ["/no/such/program"], 20, gpu_check.judge_plain),
        shell("bench", f"echo '{{}}' > {record}; echo '| 1 |'", gpu_check.judge_benchmark(record)),
    ]
    report = gpu_check.Report(PROBED, tmp_path / "results")
    gpu_check.check(report, listed, total_s=60)
    assert report.failed()
    stored = json.loads(report.stem.with_suffix(".json").read_text())
    assert report.stem.name.startswith("nvidia-test-gpu-2")
    assert stored["machine"]["torch"] == "2.11"
    assert [(step["step"], step["status"], step["reason"]) for step in stored["steps"]] == [
        ("good", "ok", ""),
        ("bad", "failed", "exit status 3: no such kernel"),
        ("absent", "failed", "/no/such/program: No such file or directory"),
        ("bench", "ok", ""),
    ]
    assert stored["steps"][-1]["figures"] == {}
    assert "## bench\n\n| 1 |" in report.stem.with_suffix(".md").read_text()


def test_nothing_follows_a_build_that_failed(tmp_path):
    report = gpu_check.Report(PROBED, tmp_path)
    listed = [shell("build", "false", needed=True), shell("tests", f"touch {tmp_path}/ran")]
    gpu_check.check(report, listed, total_s=60)
    assert [(o["status"], o["reason"]) for o in report.outcomes] == [
        ("failed", "exit status 1: no output"),
        ("skipped", "build failed"),
    ]
    assert not (tmp_path / "ran").exists()


def test_steps_after_the_time_are_skipped(tmp_path):
    report = gpu_check.Report(PROBED, tmp_path)
    gpu_check.check(report, [shell("late", "true")], total_s=1)
    assert (report.outcomes[0]["status"], report.failed()) == ("skipped", False)


@pytest.mark.parametrize(
    ("body", "options", "status", "passed"),
    [
        ("assert True", [], "ok", 1),
        ("assert False", [], "failed", 0),
        ("import pytest; pytest.skip('no device')", [], "failed", 0),
        ("assert True", ["-k", "another"], "failed", 0),
    ],
)
def test_tests_are_ok_only_if_some_passed_and_none_failed(tmp_path, body, options, status, passed):
    (tmp_path / "test_it.py").write_text(f"def test_it():\n    {body}\n")
    report = tmp_path / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider"]
    command += [*options, f"--junitxml={report}", tmp_path / "test_it.py"]
    verdict = gpu_check.run(gpu_check.Step("t", command, 60, gpu_check.judge_tests(report)), 60)
    assert (verdict.status, verdict.figures["passed"]) == (status, passed)


def test_a_benchmark_without_a_record_failed(tmp_path):
    judge = gpu_check.judge_benchmark(tmp_path / "none.json")
    assert gpu_check.run(shell("bench", "true", judge), 60).reason == "no record was kept"


def wheel(folder, name):
    """A wheel of one empty module."""
    file = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return file


def test_missing_packages_come_from_carried_wheels(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_check, "MODULES", ("json", "carried_for_a_test"))
    verdict = gpu_check.carry_packages(None)
    assert verdict.status == "failed"
    assert "carried_for_a_test cannot be imported; name a folder of wheels" in verdict.reason
    assert "no wheels in" in gpu_check.carry_packages(tmp_path).reason
    wheel(tmp_path, "another_module")
    assert "nor is in" in gpu_check.carry_packages(tmp_path).reason
    wheel(tmp_path, "carried_for_a_test")
    verdict = gpu_check.carry_packages(tmp_path)
    assert (verdict.status, "carried_for_a_test-1.0" in verdict.reason) == ("ok", True)
    assert gpu_check.carry_packages(None).status == "ok"


@pytest.mark.parametrize(
    ("arguments", "makes_venv"), [([], True), (["PYTHON=some-python", "WHEELS=folder"], False)]
)
def test_a_named_interpreter_is_used_as_it_is(arguments, makes_venv):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    done = subprocess.run(
        ["make", "-n", "-B", "gpu-check", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=BENCHMARKS.parent,
    )
    assert ("-m venv" in done.stdout) == makes_venv
    used = 'PYTHON=".venv/bin/python"' if makes_venv else 'PYTHON="some-python"'
    assert used in done.stdout
    assert ("--wheels" in done.stdout) != makes_venv


def test_without_a_device_one_line_says_so(tmp_path):
    done = subprocess.run(
        [BENCHMARKS / "gpu_check.sh", "--results", tmp_path / "results"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 1
    assert (done.stdout, done.stderr) == (
        "",
        "make gpu-check: torch finds no CUDA device on this machine\n",
    )
    assert not (tmp_path / "results").exists()


def test_the_watched_calls_run(monkeypatch, capsys):
    sanitize_ops = load("sanitize_ops")
    monkeypatch.setattr(sanitize_ops, "has_kernel", lambda name, device: "sample" not in name)
    monkeypatch.setattr(sys, "argv", ["sanitize_ops.py", "--device", "cpu"])
    sanitize_ops.main()
    *left_out, last = capsys.readouterr().out.splitlines()
    assert last == "all 56 calls ran"
    assert left_out == [
        f"{op} has no kernel for cpu: left out"
        for op in ("gaussian_sample", "logistic_mixture_sample")
    ]
