"""The machine code of the CPU kernels: every loop of a clone is vectorised at the clone's width.

GCC's vectoriser reports what it did, function by function, so each clone and each type of a
template is told apart.
"""

import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
MARK = "HVAE_CLONES"
SOURCES = [p for p in sorted((CSRC / "kernels").glob("*.cpp")) if MARK in p.read_text()]
WIDTHS = {"arch_x86_64_v4": 64, "arch_x86_64_v3": 32}  # bytes

# Functions whose loops may stay scalar, by file and with the types they are compiled for; without
# types, a template that is not compiled at all.
LIBM = "float64's exp, log, sin and cos are libm's, one value at a time; float64 is for checks"
COPY = "a call of memmove"
EXEMPT = {
    "gaussian_latent.cpp": {
        "forward_log<double>": LIBM,
        "backward_log<double>": LIBM,
        "forward_of_stds<double>": LIBM,
    },
    "gaussian_sample.cpp": {
        "forward_values<0, double>": LIBM,
        "forward_values<1, double>": LIBM,
        "backward_values<0, double>": LIBM,
        "backward_values<1, double>": LIBM,
    },
    "logistic_mixture.cpp": {
        "add_exp_values<double>": LIBM,
        "add_log_mass<double>": LIBM,
        "exp_minus_abs_values<double>": LIBM,
        "finish_log_joint<double>": LIBM,
        "inverse_scales<double>": LIBM,
        "nll_values<double>": LIBM,
        "slopes_of<double>": LIBM,
        "tanh_values<double>": LIBM,
    },
    "logistic_mixture_sample.cpp": {
        "accumulate_weights<double>": LIBM,
        "add_coupling<double>": LIBM,
        "draw_levels<double>": LIBM,
        "logistics_of<double>": LIBM,
    },
    "pixel_tile.cpp": {
        "copy_values<double, double>": COPY,
        "copy_values<float, float>": COPY,
    },
    "std_values.cpp": {
        "decays<double>": LIBM,
        "values<double>": LIBM,
        "values_and_slopes<double>": LIBM,
    },
    "tile.cpp": {"normals_of<double>": LIBM},
}

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="clones are for x86-64"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ on PATH"),
]


@dataclass(frozen=True)
class Clone:
    function: str  # add_values<float>
    arch: str
    widths: tuple[int, ...]  # bytes, of the loops that were vectorised


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


def short_name(demangled: str) -> str:
    bare = re.sub(r"\(anonymous namespace\)::|\(\w+::\w+\)|\w+::", "", demangled)
    match = re.search(r"(\w+(?:<[^()]*>)?)\(", bare)
    assert match, f"unexpected name of a function: {demangled}"
    return match[1]


def compile_clones(source: Path, csrc: Path, folder: Path, flags: list[str]) -> list[Clone]:
    report = folder / f"{source.name}.vect"
    command = ["g++", *flags, f"-I{csrc}", f"-fdump-tree-vect-optimized={report}"]
    run(*command, "-c", source, "-o", folder / f"{source.name}.o")
    return list(read_clones(report.read_text()))


def read_clones(report: str) -> Iterator[Clone]:
    # ;; Function <name> (<mangled name>.<clone>, funcdef_no=...
    parts = re.split(r"^;; Function .* \((\w+)\.(\w+), funcdef_no.*$", report, flags=re.MULTILINE)
    mangled, archs, texts = parts[1::3], parts[2::3], parts[3::3]
    names = run("c++filt", *mangled).splitlines() if mangled else []
    for name, arch, text in zip(names, archs, texts, strict=True):
        # Up to the next function, which need not be a clone.
        own = re.split(r"^;; Function ", text, flags=re.MULTILINE)[0]
        notes = re.findall(r"optimized: loop vectorized using (\d+) byte vectors", own)
        yield Clone(short_name(name), arch, tuple(map(int, notes)))


def marked_loops(text: str) -> dict[str, int]:
    """How many `omp simd` loops each function has that is marked to be cloned."""
    functions = re.findall(rf"^{MARK} [\w ]+?(\w+)\((.*?)^}}", text, flags=re.MULTILINE | re.DOTALL)
    assert len(functions) == text.count(MARK), f"some {MARK} does not mark a function"
    return {name: body.count("#pragma omp simd") for name, body in functions}


def check(source: Path, clones: list[Clone], exempt: Mapping[str, str]) -> list[str]:
    """What is wrong with the clones of a source, a line each."""
    found = []
    marked = marked_loops(source.read_text())
    for function, num_loops in marked.items():
        # With several loops, one that vectorises would hide one that does not.
        if num_loops != 1:
            found.append(f"{function} has {num_loops} loops marked `omp simd`, not 1")
        for arch in WIDTHS:
            compiled = {c.function.split("<")[0] for c in clones if c.arch == arch}
            if function not in compiled | set(exempt):
                found.append(f"{function} has no clone for {arch}")
    for clone in clones:
        width = WIDTHS.get(clone.arch)
        if width and width not in clone.widths and clone.function not in exempt:
            found.append(f"{clone.function} for {clone.arch}: no loop of {width} byte vectors")
    missing = set(exempt) - {clone.function for clone in clones} - set(marked)
    return found + [f"{function} is exempt, but not there" for function in sorted(missing)]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_loops_of_clones_are_vectorised(
    source: Path, build: Mapping[str, Any], tmp_path: Path
) -> None:
    clones = compile_clones(source, CSRC, tmp_path, build["CXX_FLAGS"])
    found = check(source, clones, EXEMPT.get(source.name, {}))
    assert not found, "\n".join(found)


def test_exempt_files_exist() -> None:
    assert set(EXEMPT) <= {source.name for source in SOURCES}


# What may take the place of the sum in residual.cpp, each an obstacle to vectorisation.
SUM = "sum[i] = a[i] + b[i];"
OBSTACLES = {
    "call": "sum[i] = opaque(a[i]) + b[i];",
    "libm": "sum[i] = __builtin_expf(a[i]) + b[i];",
    "carried": "if (i == 0) { sum[i] = b[i]; } else { sum[i] = a[i] + sum[i - 1]; }",
}
OPAQUE = "template <typename A> __attribute__((noipa)) A opaque(A x) { return x; }\n"


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_planted_obstacles_are_found(
    obstacle: str, build: Mapping[str, Any], tmp_path: Path
) -> None:
    text = (CSRC / "kernels" / "residual.cpp").read_text()
    assert SUM in text
    source = tmp_path / "residual.cpp"
    source.write_text(OPAQUE + text.replace(SUM, OBSTACLES[obstacle]))
    clones = compile_clones(source, CSRC, tmp_path, build["CXX_FLAGS"])
    assert sorted(check(source, clones, {})) == [
        "add_values<double> for arch_x86_64_v3: no loop of 32 byte vectors",
        "add_values<double> for arch_x86_64_v4: no loop of 64 byte vectors",
        "add_values<float> for arch_x86_64_v3: no loop of 32 byte vectors",
        "add_values<float> for arch_x86_64_v4: no loop of 64 byte vectors",
    ]


def test_clones_and_sources_name_the_same_functions(tmp_path: Path) -> None:
    source = tmp_path / "loops.cpp"
    source.write_text(
        f"{MARK} void twice(int count, float* x) {{\n"
        "#pragma omp simd\n  for (int i = 0; i < count; ++i) x[i] += 1;\n"
        "#pragma omp simd\n  for (int i = 0; i < count; ++i) x[i] += x[i];\n}\n"
    )
    clones = [Clone("twice", "arch_x86_64_v4", (64, 32)), Clone("twice", "default", ())]
    assert check(source, clones, {"once": "a reason"}) == [
        "twice has 2 loops marked `omp simd`, not 1",
        "twice has no clone for arch_x86_64_v3",
        "once is exempt, but not there",
    ]
