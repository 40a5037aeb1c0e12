"""Compiles the C++ tests with g++, without torch or CUDA, and runs them."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
KERNELS = sorted((CSRC / "kernels").glob("*.cpp"))
CUDA = sorted((CSRC / "kernels").glob("*.cu"))
FLAGS = [
    *("-std=c++17", "-O2", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", f"-I{CSRC}", f"-I{HERE}"),
]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ on PATH")


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


def compile_object(source: Path, folder: Path, *flags: str) -> Path:
    target = folder / f"{source.name}.o"
    run("g++", *FLAGS, *flags, "-c", source, "-o", target)
    return target


def compile_test(name: str, folder: Path, *inputs: Path) -> Path:
    program = folder / name
    run("g++", *FLAGS, HERE / f"{name}.cpp", *inputs, "-o", program)
    return program


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("kernels")
    return [compile_object(source, folder, "-O3") for source in KERNELS]


@pytest.mark.parametrize("name", ["test_math", "test_gaussian", "test_logistic"])
def test_maths(name: str, tmp_path: Path) -> None:
    run(compile_test(name, tmp_path))


@pytest.mark.parametrize(
    "name", ["test_philox", "test_kernels", "test_mixture", "test_scale_rows", "test_large"]
)
def test_cpu_kernels(name: str, tmp_path: Path, kernels: list[Path]) -> None:
    run(compile_test(name, tmp_path, *kernels))


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("emulated")
    return [compile_object(source, folder, "-x", "c++", "-DHVAE_EMULATE_CUDA") for source in CUDA]


@pytest.mark.parametrize(
    "name", ["test_cuda_emulated", "test_mixture_emulated", "test_large_emulated"]
)
def test_emulated_cuda_kernels(name: str, tmp_path: Path, emulated: list[Path]) -> None:
    run(compile_test(name, tmp_path, *emulated))


@pytest.mark.parametrize("fault", ["barrier", "exchange"])
def test_the_emulator_aborts_on_faulty_kernels(fault: str, tmp_path: Path) -> None:
    program = compile_test("bad_kernels", tmp_path)
    done = subprocess.run([program, fault], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGABRT
    assert fault in done.stderr


def test_simd_level_fits_this_machine(tmp_path: Path, kernels: list[Path]) -> None:
    source = tmp_path / "level.cpp"
    source.write_text(
        '#include <cstdio>\n#include "kernels/simd.h"\n'
        "int main() { std::puts(hvae::simd_level()); }\n"
    )
    program = tmp_path / "level"
    run("g++", *FLAGS, source, *kernels, "-o", program)
    level = run(program).strip()
    cpu_flags = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    assert level in ("avx512", "avx2", "baseline")
    assert (level == "avx512") <= ("avx512f" in cpu_flags)
    assert (level == "avx2") <= ("avx2" in cpu_flags)
