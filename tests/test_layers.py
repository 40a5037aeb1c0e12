"""The floors of the source tree: nothing imports upward, and nothing reads pickles."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A room is a folder or a root module of hvae/. It may import itself and lower floors; rooms of one
# floor never import each other.
PYTHON_FLOORS = {
    **dict.fromkeys(["errors", "_host", "__version__"], 0),
    **dict.fromkeys(["files", "section", "resources", "zipped"], 1),
    "_native": 2,
    "ops": 3,
    **dict.fromkeys(["nn", "distributions"], 4),
    "models": 5,
    **dict.fromkeys(["losses", "metrics", "inference", "data", "testing", "checkpoint"], 6),
    **dict.fromkeys(["training", "export", "bench"], 7),
    "cli": 8,
    **dict.fromkeys(["__init__", "__main__"], 9),
}

CPP_FLOORS = {"math": 0, "kernels": 1, "ops": 2, "host": 2}

# Headers of others that a room may include, by prefix. Of CUDA, the maths knows the types only.
_STABLE_ABI = ("torch/csrc/stable/", "torch/headeronly/", "torch/csrc/inductor/aoti_torch/")
CPP_HEADERS = {
    "math": ("cuda_bf16.h", "cuda_fp16.h"),
    "kernels": ("cuda", "immintrin.h"),
    "ops": (*_STABLE_ABI, "dlfcn.h"),
    "host": ("pybind11/",),
}

_INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def python_files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def room_of(module: str) -> str:
    """`hvae.ops.philox` -> `ops`; `hvae` itself is `__init__`."""
    return module.split(".")[1] if "." in module else "__init__"


def imported_modules(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything a module imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"hvae.{a.name}" for a in node.names] if source == "hvae" else [source]
            yield from ((node.lineno, name) for name in names)


def python_breaches(file: Path, package_root: Path) -> list[str]:
    parts = file.relative_to(package_root).with_suffix("").parts
    here = parts[0]
    if here not in PYTHON_FLOORS:
        return [f"{file}: hvae/{here} has no floor; give it one in tests/test_layers.py"]
    package = ".".join(["hvae", *parts[:-1]])
    breaches = []
    for line, module in imported_modules(ast.parse(file.read_text()), package):
        there = room_of(module)
        if module.split(".")[0] != "hvae" or there == here:
            continue
        if PYTHON_FLOORS.get(there, PYTHON_FLOORS["__init__"]) >= PYTHON_FLOORS[here]:
            breaches.append(f"{file}:{line}: {here} must not import {module}")
    return breaches


def cpp_breaches(file: Path, csrc: Path) -> list[str]:
    here = file.relative_to(csrc).parts[0]
    breaches = []
    for bracket, header in _INCLUDE.findall(file.read_text()):
        there = header.split("/")[0]
        if bracket == '"':
            allowed = there == here or CPP_FLOORS.get(there, 0) < CPP_FLOORS[here]
        else:
            standard = "/" not in header and "." not in header
            allowed = standard or header.startswith(CPP_HEADERS[here])
        if not allowed:
            breaches.append(f"{file}: {here} must not include {header}")
    return breaches


def test_no_python_module_imports_upward() -> None:
    package = ROOT / "hvae"
    assert not [b for file in python_files("hvae") for b in python_breaches(file, package)]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("ops/gaussian.py", "from hvae.models import HVAE"),
        ("nn/block.py", "from hvae.distributions.base import Distribution"),
        ("losses/elbo.py", "def f():\n    import hvae.metrics.frechet"),
        ("data/source.py", "from hvae import training"),
        ("data/source.py", "from ..training import fit"),
        ("models/hvae.py", "from hvae import HVAE"),
        ("attic/old.py", ""),
    ],
)
def test_an_upward_import_is_found(tmp_path: Path, file: str, source: str) -> None:
    planted = tmp_path / file
    planted.parent.mkdir()
    planted.write_text(source)
    assert len(python_breaches(planted, tmp_path)) == 1


def test_no_cpp_file_includes_upward() -> None:
    csrc = ROOT / "csrc"
    files = [f for f in csrc.rglob("*") if f.suffix in {".h", ".cpp", ".cu", ".cuh"}]
    assert files
    assert not [b for file in sorted(files) for b in cpp_breaches(file, csrc)]


@pytest.mark.parametrize(
    ("file", "header"),
    [
        ("math/gaussian.h", '"kernels/gaussian_latent.h"'),
        ("math/gaussian.h", "<cuda_runtime.h>"),
        ("kernels/gaussian_latent.cpp", "<torch/csrc/stable/tensor.h>"),
        ("ops/gaussian_latent.cpp", "<ATen/ATen.h>"),
        ("ops/gaussian_latent.cpp", "<pybind11/pybind11.h>"),
        ("host/host.cpp", '"ops/check.h"'),
    ],
)
def test_an_upward_include_is_found(tmp_path: Path, file: str, header: str) -> None:
    planted = tmp_path / file
    planted.parent.mkdir()
    planted.write_text(f"#include {header}\n")
    assert len(cpp_breaches(planted, tmp_path)) == 1


_PICKLE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
_UNSAFE_ARGUMENTS = {"weights_only": False, "allow_pickle": True}


def pickle_uses(tree: ast.AST) -> list[int]:
    """Lines that import a pickling module or pass an argument that lets a loader unpickle."""
    imports = [
        line for line, name in imported_modules(tree, "") if name.split(".")[0] in _PICKLE_MODULES
    ]
    arguments = [
        node.value.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword)
        and isinstance(node.value, ast.Constant)
        and node.arg in _UNSAFE_ARGUMENTS
        and node.value.value is _UNSAFE_ARGUMENTS[node.arg]
    ]
    return imports + arguments


def test_nothing_is_pickled() -> None:
    files = [*python_files("hvae", "benchmarks"), *ROOT.glob("*.py")]
    uses = {str(file): pickle_uses(ast.parse(file.read_text())) for file in files}
    assert not {file: lines for file, lines in uses.items() if lines}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(path, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
    ],
)
def test_a_pickle_is_found(source: str) -> None:
    assert pickle_uses(ast.parse(source)) == [1]
