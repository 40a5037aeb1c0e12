"""Builds, tests and measures on a GPU machine, and writes down how each step went.

    make gpu-check                                  in .venv
    make gpu-check PYTHON=python3 WHEELS=folder     an interpreter as it is, without a network

Writes `<gpu>-<date>.json` and `.md` after every step: status ok, failed or skipped, the reason, and
figures. A tool that does not work on the device is skipped, never clean. A step that runs out of
its time failed, except for compute-sanitizer, which may be too slow. The exit status is 1 if a step
failed.

The standard library is enough for this file: it runs before anything is installed or built.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build/gpu-check"
SITE = ROOT / "build/gpu-check-site"
# For all steps; what comes after it is skipped.
TOTAL_S = 520.0
# A step that would get less is skipped.
LEAST_S = 5.0

MODULES = (
    *("numpy", "omegaconf", "PIL", "pydantic", "yaml", "rich", "safetensors", "torchmetrics"),
    *("typer", "setuptools", "hypothesis", "pytest", "scipy"),
)
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
SANITIZER_FOLDERS = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")
# The exit status that compute-sanitizer is asked to give where it finds something.
FOUND = 99
# Lines of compute-sanitizer: what it found, that it cannot watch this device, and its last one.
FINDING = re.compile(
    r"^=+ *(?:(?:Error|Warning): )?(?:Invalid|Misaligned|Uninitialized|Host API uninitialized"
    r"|Race reported|Potential .*hazard|Barrier error|Divergent).*$",
    re.MULTILINE | re.IGNORECASE,
)
REFUSAL = re.compile(
    r"^=+ (?!.*Frame:).*(?:not supported|unsupported|failed to initialize|unable to"
    r"|LibraryNotLoaded|no attachable process).*$",
    re.MULTILINE | re.IGNORECASE,
)
SUMMARY = re.compile(r"^=+ (?:ERROR|RACECHECK) SUMMARY: (.+)$", re.MULTILINE)

PROBE = """
import json, sys
try:
    import torch
except ImportError:
    sys.exit("this Python has no torch: " + sys.executable)
if not torch.cuda.is_available():
    sys.exit("torch finds no CUDA device on this machine")
device = torch.cuda.get_device_properties(0)
print(json.dumps({
    "gpu": device.name, "capability": f"{device.major}.{device.minor}",
    "python": sys.version.split()[0], "torch": torch.__version__, "torch_cuda": torch.version.cuda,
}))
"""


@dataclass(frozen=True)
class Done:
    """How a command ended: its status, None where its time ran out, and what it printed."""

    status: int | None
    out: str
    err: str

    def last_line(self) -> str:
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1].strip() if lines else "no output"


@dataclass
class Verdict:
    """How a step went: "ok", "failed" or "skipped", why, and what it found."""

    status: str
    reason: str = ""
    figures: Any = None
    table: str = ""


Judge = Callable[[Done], Verdict]


@dataclass(frozen=True)
class Step:
    """A command with a time limit, and what its end means."""

    name: str
    command: Sequence[str | Path]
    limit_s: float
    judge: Judge
    environment: Mapping[str, str] = field(default_factory=dict)
    # What the step cannot be run for; empty if it can.
    obstacle: str = ""
    # Whether nothing can follow where it fails.
    needed: bool = False
    may_time_out: bool = False


def judge_plain(done: Done) -> Verdict:
    """Ok where the command exits with 0."""
    if done.status == 0:
        return Verdict("ok")
    return Verdict("failed", f"exit status {done.status}: {done.last_line()}")


def judge_tests(report: Path) -> Judge:
    """Ok where tests passed and none failed; a run that skips all of them is not."""

    def judge(done: Done) -> Verdict:
        if not report.exists():
            return judge_plain(done) if done.status else Verdict("failed", "pytest left no report")
        suites = ElementTree.parse(report).getroot().iter("testsuite")
        names = ("tests", "failures", "errors", "skipped")
        counts = dict.fromkeys(names, 0)
        for suite in suites:
            for name in names:
                counts[name] += int(suite.get(name, 0))
        passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
        figures = {"passed": passed, **counts}
        text = f"{passed} passed, {counts['failures']} failed, {counts['errors']} errors"
        text += f", {counts['skipped']} skipped"
        good = done.status == 0 and passed > 0
        return Verdict("ok" if good else "failed", text, figures)

    return judge


def judge_sanitizer(done: Done) -> Verdict:
    """Ok only where the tool says that it watched every call and found nothing."""
    text = f"{done.out}\n{done.err}"
    summary = SUMMARY.search(text)
    clean = summary is not None and re.match(r"0 (errors|hazards)\b", summary[1])
    calls = re.search(r"^all \d+ calls ran$", text, re.MULTILINE)
    finding = FINDING.search(text)
    if finding:
        parts = [finding[0].strip("= "), *([summary[1]] if summary else [])]
        return Verdict("failed", "; ".join(parts))
    # Before the summary, which counts the refusal as an error.
    if refusal := REFUSAL.search(text):
        return Verdict("skipped", refusal[0].strip("= "))
    if done.status == 0 and clean and calls:
        left_out = re.findall(r"^\w+ has no kernel for \w+: left out$", text, re.MULTILINE)
        return Verdict("ok", "; ".join([summary[1], calls[0], *left_out]))
    if clean and not calls:
        return Verdict("failed", f"exit status {done.status}, and not all calls ran")
    end = summary[1] if summary and not clean else done.last_line()
    return Verdict("failed", f"exit status {done.status}: {end}")


def judge_benchmark(record: Path) -> Judge:
    """Ok where a record was kept; a benchmark refuses an op that fails its check."""

    def judge(done: Done) -> Verdict:
        if done.status != 0 or not record.exists():
            return judge_plain(done) if done.status else Verdict("failed", "no record was kept")
        return Verdict("ok", figures=json.loads(record.read_text()), table=done.out.strip())

    return judge


def steps(probed: Mapping[str, str], python: str = sys.executable) -> list[Step]:
    """What is done, in this order."""
    arch = os.environ.get("HVAE_CUDA_ARCH", probed["capability"].replace(".", ""))
    build = [python, "setup.py", "build_ext", "--inplace"]
    tests = WORK / "tests.xml"
    pytest = [python, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    pytest += ["--continue-on-collection-errors", f"--junitxml={tests}"]
    build_options = {"HVAE_CUDA": "1", "HVAE_CUDA_ARCH": arch}
    listed = [
        Step("build", build, 150, judge_plain, build_options, needed=True),
        Step("tests", pytest, 150, judge_tests(tests)),
    ]
    sanitizer = find_sanitizer()
    for tool in SANITIZERS:
        listed.append(
            Step(
                tool,
                [
                    *(sanitizer or "compute-sanitizer", "--tool", tool),
                    *("--error-exitcode", str(FOUND)),
                    # Torch asks the driver for what it may not have, and does without.
                    *("--report-api-errors", "no"),
                    *(python, "benchmarks/sanitize_ops.py"),
                ],
                50,
                judge_sanitizer,
                # Blocks of torch's cache would hide reads past the end of a tensor.
                {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
                obstacle="" if sanitizer else "compute-sanitizer is not on PATH",
                may_time_out=True,
            )
        )
    large = ["--shape", "128x16x64x64", "--shape", "logistic_mixture_nll:32x3x64x64"]
    large += ["--shape", "logistic_mixture_sample:32x3x64x64"]
    for name, limit_s, options in (
        ("kernels float32", 180, ["kernels"]),
        ("kernels bfloat16", 80, ["kernels", "--dtype", "bfloat16", *large]),
        ("step", 80, ["step", "--rounds", "15"]),
        ("sampling", 80, ["sampling", "--rounds", "15"]),
    ):
        record = WORK / f"{name.replace(' ', '-')}.json"
        command = [python, "-m", "hvae", "bench", *options, "--device", "cuda", "--save", record]
        listed.append(Step(name, command, limit_s, judge_benchmark(record)))
    return listed


def find_sanitizer() -> str | None:
    """Path of compute-sanitizer, which a CUDA toolkit may keep off PATH."""
    folders = [f"{os.environ['CUDA_HOME']}/bin"] if "CUDA_HOME" in os.environ else []
    path = os.pathsep.join([os.environ.get("PATH", ""), *folders, *SANITIZER_FOLDERS])
    return shutil.which("compute-sanitizer", path=path)


def run(step: Step, time_left_s: float) -> Verdict:
    """Run a step within its limit and the time left; its output is kept under `WORK`."""
    if step.obstacle:
        return Verdict("skipped", step.obstacle)
    if time_left_s < LEAST_S:
        return Verdict("skipped", "no time was left")
    limit_s = min(step.limit_s, time_left_s)
    try:
        done = finish(step, limit_s)
    except OSError as error:
        return Verdict("failed", f"{step.command[0]}: {error.strerror}")
    if done.status is None:
        reason = f"timed out after {limit_s:.0f} s"
        slow = step.may_time_out and not FINDING.search(done.out + done.err)
        return Verdict("skipped" if slow else "failed", reason)
    return step.judge(done)


def finish(step: Step, limit_s: float) -> Done:
    """Wait for the command of a step; end it and all that it started when the time is over."""
    WORK.mkdir(parents=True, exist_ok=True)
    logs = [WORK / f"{step.name.replace(' ', '-')}.{kind}" for kind in ("out", "err")]
    with logs[0].open("wb") as out, logs[1].open("wb") as err:
        process = subprocess.Popen(
            [str(word) for word in step.command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=ROOT,
            env={**os.environ, "HVAE_KERNELS": "require", **python_path(), **step.environment},
            start_new_session=True,
        )
        status: int | None = None
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return Done(status, *(log.read_text(errors="replace") for log in logs))


def python_path() -> dict[str, str]:
    """The repository and the carried packages, before what the caller has there."""
    inherited = [path] if (path := os.environ.get("PYTHONPATH")) else []
    return {"PYTHONPATH": os.pathsep.join([str(ROOT), str(SITE), *inherited])}


def carry_packages(wheels: Path | None) -> Verdict:
    """See that every module can be imported, by the carried wheels for what is missing."""
    absent = missing_modules()
    if not absent:
        return Verdict("ok")
    files = sorted(wheels.glob("*.whl")) if wheels else []
    if not files:
        where = f"no wheels in {wheels}" if wheels else "name a folder of wheels by WHEELS="
        return Verdict("failed", f"{', '.join(absent)} cannot be imported; {where}")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    # Exactly these: what they depend on is there already, or among them.
    pip += ["--no-index", "--no-deps", "--upgrade", "--target", str(SITE), *map(str, files)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        last_line = Done(done.returncode, done.stdout, done.stderr).last_line()
        return Verdict("failed", f"pip: {last_line}")
    if absent := missing_modules():
        return Verdict("failed", f"{', '.join(absent)} cannot be imported, nor is in {wheels}")
    return Verdict("ok", f"carried: {', '.join(file.name for file in files)}")


def missing_modules() -> list[str]:
    """Modules that cannot be imported, tried in a process of their own."""
    program = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError:
        print(name)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *MODULES],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **python_path()},
    )
    return done.stdout.split()


@dataclass
class Report:
    """What is known so far, as files."""

    probed: Mapping[str, Any]
    folder: Path
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    date: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def stem(self) -> Path:
        slug = re.sub(r"[^a-z0-9]+", "-", self.probed["gpu"].lower()).strip("-")
        return self.folder / f"{slug}-{self.date:%Y-%m-%d}"

    def add(self, name: str, verdict: Verdict, seconds: float) -> None:
        """Note how a step went, and write everything down."""
        self.outcomes.append({"step": name, **asdict(verdict), "seconds": round(seconds, 1)})
        reason = f" ({verdict.reason})" if verdict.reason else ""
        print(f"{name}: {verdict.status}{reason}, {seconds:.0f} s", flush=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        record = {"date": self.date.isoformat(timespec="seconds"), "machine": dict(self.probed)}
        rows = [{k: v for k, v in o.items() if k != "table"} for o in self.outcomes]
        text = json.dumps({**record, "steps": rows}, indent=1)
        self.stem.with_suffix(".json").write_text(text + "\n")
        self.stem.with_suffix(".md").write_text(self.markdown())

    def markdown(self) -> str:
        versions = ", ".join(f"{name} {value}" for name, value in self.probed.items())
        lines = [f"# make gpu-check, {self.date:%Y-%m-%d}", "", versions, ""]
        lines += ["| step | status | seconds | |", "| --- | --- | --- | --- |"]
        for o in self.outcomes:
            reason = o["reason"].replace("|", "\\|")
            lines.append(f"| {o['step']} | {o['status']} | {o['seconds']:.0f} | {reason} |")
        for o in self.outcomes:
            if o["table"]:
                lines += ["", f"## {o['step']}", "", o["table"]]
        return "\n".join(lines) + "\n"

    def failed(self) -> bool:
        return any(o["status"] == "failed" for o in self.outcomes)


def check(report: Report, listed: Sequence[Step], total_s: float, blocked: str = "") -> None:
    """Run steps one after another; after a needed one that failed the others are skipped."""
    end = time.monotonic() + total_s
    for step in listed:
        start = time.monotonic()
        verdict = Verdict("skipped", blocked) if blocked else run(step, end - start)
        if step.needed and verdict.status != "ok":
            blocked = blocked or f"{step.name} {verdict.status}"
        report.add(step.name, verdict, time.monotonic() - start)


def probe() -> dict[str, Any]:
    """The device and the versions; exits with one line where there is no device."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = Done(done.returncode, "", done.stderr).last_line()
        sys.exit(f"make gpu-check: {reason}")
    return {
        **json.loads(done.stdout),
        "driver": first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "nvcc": last_word("nvcc", "--version"),
        "commit": first_line("git", "describe", "--always", "--dirty", "--abbrev=10"),
    }


def first_line(*command: str) -> str:
    lines = output_of(command).splitlines()
    return lines[0].strip() if lines else "unknown"


def last_word(*command: str) -> str:
    words = output_of(command).split()
    return words[-1] if words else "unknown"


def output_of(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=20, cwd=ROOT
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description="Build, test and measure on a GPU machine")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--wheels", type=Path, help="packages for an interpreter without them")
    parser.add_argument("--seconds", type=float, default=TOTAL_S, help="for all steps")
    arguments = parser.parse_args()
    start = time.monotonic()
    report = Report(probe(), arguments.results)
    # Of an earlier run; a step must not be judged by them.
    shutil.rmtree(WORK, ignore_errors=True)
    packages = carry_packages(arguments.wheels)
    report.add("packages", packages, time.monotonic() - start)
    time_left_s = arguments.seconds - (time.monotonic() - start)
    blocked = "" if packages.status == "ok" else "packages failed"
    check(report, steps(report.probed), time_left_s, blocked)
    print(f"written: {report.stem}.json and .md")
    return int(report.failed())


if __name__ == "__main__":
    sys.exit(main())
