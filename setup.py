"""Compiles hvae's two extensions with ninja: g++ for C++, nvcc for CUDA where it is found.

    variable        default       meaning
    HVAE_CUDA       auto          auto: CUDA kernels if there is a toolkit; 1: demand them; 0: none
    HVAE_CUDA_ARCH  "80 90 100"   compute capabilities; PTX of the last is added for newer GPUs
    CUDA_HOME       -             the toolkit to use instead of the `nvcc` on PATH
    CXX             g++           the C++ compiler
    MAX_JOBS        all cores     compilations at once

`hvae/_ops.so` holds the kernels and their LibTorch stable-ABI binding, without Python symbols: one
file for every torch >= 2.11, and for machines with and without a GPU. torch's own `CUDAExtension`
refuses CUDA sources beside a CPU-only torch, hence this one. `hvae/_host` is a pybind11 module for
host code without tensors, since pybind11 clashes with the stable ABI's version pin; it is left out
where Python's own headers are missing. `hvae/_build.json` tells what was built, and what not.

Everything else about the package stands in pyproject.toml.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

from build_backend import TorchInstall, find_torch

CSRC = Path("csrc")
OPS_LIBRARY = Path("hvae/_ops.so")
BUILD_INFO = Path("hvae/_build.json")
# The oldest LibTorch stable ABI that the binding uses: 2.11. A newer call fails to compile.
TORCH_TARGET_VERSION = "0x020b000000000000ULL"
DEFAULT_CUDA_ARCHS = ("80", "90", "100")
CXX_FLAGS = [
    *("-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"),
    *("-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"),
]
if platform.machine() == "x86_64":
    CXX_FLAGS.append("-mprefer-vector-width=512")
NVCC_FLAGS = ["-O3", "-std=c++17", "-Xcompiler", "-fPIC,-fvisibility=hidden", "--threads=2"]


@dataclass(frozen=True)
class CudaToolkit:
    nvcc: Path
    version: str
    lib: Path
    archs: tuple[str, ...]

    def arch_flags(self) -> list[str]:
        machine_code = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in self.archs]
        return [*machine_code, "-gencode=arch=compute_{0},code=compute_{0}".format(self.archs[-1])]


def fail(message: str) -> SystemExit:
    return SystemExit(f"hvae: {message}")


def output_of(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def find_compiler() -> tuple[str, str]:
    """The C++ compiler's command and the first line of its `--version`."""
    if sys.platform != "linux":
        raise fail(f"the kernels compile on Linux only, and this is {sys.platform}")
    cxx = os.environ.get("CXX", "g++")
    if shutil.which(cxx) is None:
        raise fail(f"the C++ compiler {cxx!r} is not on PATH; apt-get install g++, or set CXX")
    return cxx, output_of(cxx, "--version").splitlines()[0]


def find_cuda() -> tuple[CudaToolkit | None, str]:
    """The CUDA toolkit to compile with, or None and the reason."""
    wanted = os.environ.get("HVAE_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        raise fail(f"HVAE_CUDA must be auto, 0 or 1, and is {wanted!r}")
    if wanted == "0":
        return None, "HVAE_CUDA=0"
    toolkit, reason = probe_cuda()
    if toolkit is None and wanted == "1":
        raise fail(f"HVAE_CUDA=1, but {reason}")
    return toolkit, reason


def probe_cuda() -> tuple[CudaToolkit | None, str]:
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=str(Path(home) / "bin") if home else None)
    if nvcc is None:
        return None, f"there is no nvcc in {home}/bin" if home else "nvcc is not on PATH"
    # `nvcc` may be a link or a script; only nvcc itself knows which toolkit it belongs to.
    top = re.search(r"^#\$ TOP=(.+)$", output_of(nvcc, "--dryrun", "-x", "cu", os.devnull), re.M)
    version = re.search(r"release .*V([\d.]+)", output_of(nvcc, "--version"))
    if top is None or version is None:
        return None, f"{nvcc} does not answer like CUDA's compiler"
    root = Path(top[1]).resolve()
    libs = [root / "lib64", root / "lib", root / "targets" / f"{platform.machine()}-linux" / "lib"]
    lib = next((folder for folder in libs if (folder / "libcudart_static.a").exists()), None)
    if lib is None:
        return None, f"{root} has no libcudart_static.a (is the CUDA runtime's package installed?)"
    return CudaToolkit(Path(nvcc), version[1], lib, choose_archs(nvcc)), ""


def choose_archs(nvcc: str) -> tuple[str, ...]:
    known = re.findall(r"compute_(\w+)", output_of(nvcc, "--list-gpu-arch"))
    if named := os.environ.get("HVAE_CUDA_ARCH", "").replace(",", " ").split():
        if unknown := [arch for arch in named if arch.rstrip("af") not in known]:
            raise fail(f"HVAE_CUDA_ARCH has {unknown[0]!r}; this nvcc knows {' '.join(known)}")
        return tuple(named)
    return tuple(arch for arch in DEFAULT_CUDA_ARCHS if arch in known) or (known[-1],)


class NinjaFile:
    """A build.ninja under construction. Flags are lists of arguments, paths may hold spaces."""

    def __init__(self, folder: Path) -> None:
        self.lines = [f"builddir = {folder}"]

    def rule(self, name: str, command: str, *, depfile: bool = True) -> None:
        self.lines += [f"rule {name}", f"  command = {command}", f"  description = {name} $out"]
        if depfile:
            self.lines += ["  depfile = $out.d", "  deps = gcc"]

    def build(
        self, rule: str, out: Path, inputs: Iterable[Path], flags: Iterable[str] = ()
    ) -> Path:
        escape = re.compile(r"([$ :])")
        names = [escape.sub(r"$\1", str(path)) for path in (out, *inputs)]
        self.lines.append(f"build {names[0]}: {rule} {' '.join(names[1:])}")
        self.lines.append(f"  flags = {shlex.join(flags).replace('$', '$$')}")
        return out

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def write_if_changed(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class NativeBuild:
    """The plan of both extensions: which file is compiled how, and what is linked from it."""

    def __init__(self, folder: Path, torch: TorchInstall) -> None:
        self.folder = folder
        self.torch = torch
        self.cxx, self.cxx_version = find_compiler()
        self.cuda, self.no_cuda_reason = find_cuda()
        self.no_host_reason = missing_python_headers()
        self.ninja = NinjaFile(folder)

    def run(self, host_module: Path) -> None:
        """Brings both shared libraries and the build information up to date, under `folder`."""
        self._add_rules()
        kernels = self._compile("cxx", "kernels/*.cpp")
        objects = [*kernels, *self._cuda_kernels(), *self._ops_binding()]
        self.ninja.build("link", self.folder / OPS_LIBRARY, objects, self._ops_libs())
        if not self.no_host_reason:
            simd = [obj for obj in kernels if obj.name == "simd.cpp.o"]
            self.ninja.build("link", self.folder / host_module, [*self._host_objects(), *simd])
        write_if_changed(self.folder / "build.ninja", self.ninja.text())
        write_if_changed(self.folder / BUILD_INFO, json.dumps(self._build_info(), indent=2) + "\n")
        self._run_ninja()

    def _add_rules(self) -> None:
        cxx_flags = shlex.join([*CXX_FLAGS, f"-I{CSRC}"])
        self.ninja.rule("cxx", f"{self.cxx} -MMD -MF $out.d {cxx_flags} $flags -c $in -o $out")
        self.ninja.rule("link", f"{self.cxx} -shared $in -o $out $flags", depfile=False)
        if self.cuda:
            command = [str(self.cuda.nvcc), "-ccbin", self.cxx, *NVCC_FLAGS]
            command += [*self.cuda.arch_flags(), f"-I{CSRC}"]
            self.ninja.rule("nvcc", f"{shlex.join(command)} -MD -MF $out.d -c $in -o $out")

    def _compile(self, rule: str, pattern: str, flags: Iterable[str] = ()) -> list[Path]:
        return [
            self.ninja.build(rule, self.folder / f"{source}.o", [source], flags)
            for source in sorted(CSRC.glob(pattern))
        ]

    def _cuda_kernels(self) -> list[Path]:
        return self._compile("nvcc", "kernels/*.cu") if self.cuda else []

    def _ops_binding(self) -> list[Path]:
        flags = ["-isystem", str(self.torch.root / "include")]
        flags += [f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}"]
        if self.cuda:
            flags += ["-DHVAE_WITH_CUDA", "-DUSE_CUDA"]
        return self._compile("cxx", "ops/*.cpp", flags)

    def _ops_libs(self) -> list[str]:
        # No rpath: `hvae._native` loads the library after torch, so its dependencies are there.
        libs = [f"-L{self.torch.root / 'lib'}", "-ltorch_cpu", "-ltorch", "-lc10"]
        if self.cuda:
            libs += [f"-L{self.cuda.lib}", "-lcudart_static", "-lculibos"]
            libs += ["-ldl", "-lrt", "-lpthread"]
        # A missing launcher is a link error here, not an import error there; and the runtime's
        # static symbols stay inside.
        return [*libs, "-Wl,-z,defs", "-Wl,--exclude-libs,ALL"]

    def _host_objects(self) -> list[Path]:
        import pybind11

        folders = [pybind11.get_include(), sysconfig.get_path("include")]
        return self._compile("cxx", "host/*.cpp", [f"-isystem{folder}" for folder in folders])

    def _build_info(self) -> dict[str, Any]:
        """What `hvae._native.build_info` reports; the keys are documented there."""
        return {
            "compiler": self.cxx_version,
            "flags": shlex.join(CXX_FLAGS),
            "torch_version": self.torch.version,
            "torch_target_version": TORCH_TARGET_VERSION,
            "cuda_compiled": self.cuda is not None,
            "cuda_reason": self.no_cuda_reason,
            "cuda_archs": list(self.cuda.archs) if self.cuda else [],
            "nvcc_version": self.cuda.version if self.cuda else None,
            "host_compiled": not self.no_host_reason,
            "host_reason": self.no_host_reason,
        }

    def _run_ninja(self) -> None:
        command = [find_ninja(), "-f", str(self.folder / "build.ninja")]
        if jobs := os.environ.get("MAX_JOBS"):
            command += ["-j", jobs]
        if subprocess.run(command, check=False).returncode != 0:
            hint = " (HVAE_CUDA=0 builds without the CUDA kernels)" if self.cuda else ""
            raise fail(f"the compilation failed; the compiler's message stands above{hint}")


def missing_python_headers() -> str:
    """Why there can be no `hvae._host`; empty where it can be built."""
    header = Path(sysconfig.get_path("include"), "Python.h")
    return "" if header.exists() else f"there is no {header} (apt-get install python3-dev)"


def find_ninja() -> str:
    try:
        from ninja import BIN_DIR
    except ImportError:
        if (found := shutil.which("ninja")) is None:
            raise fail("ninja is missing; pip install ninja") from None
        return found
    return str(Path(BIN_DIR) / "ninja")


class BuildExt(build_ext):
    """Runs ninja in one folder under build/, whatever the front end, so that builds stay quick."""

    def get_ext_filename(self, fullname: str) -> str:
        # setuptools asks with and without the package in front.
        *packages, name = fullname.split(".")
        if name == "_ops":  # no Python symbols in it, so no Python version in its name
            return str(Path(*packages, OPS_LIBRARY.name))
        return super().get_ext_filename(fullname)

    def build_extensions(self) -> None:
        folder = Path("build") / f"native-{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
        host_module = Path(self.get_ext_filename("hvae._host"))
        NativeBuild(folder, find_torch()).run(host_module)
        (Path(self.build_lib) / "hvae").mkdir(parents=True, exist_ok=True)
        for file in (OPS_LIBRARY, host_module, BUILD_INFO):
            if (folder / file).exists():
                self.copy_file(str(folder / file), str(Path(self.build_lib) / file))

    def copy_extensions_to_source(self) -> None:
        super().copy_extensions_to_source()
        self.copy_file(str(Path(self.build_lib) / BUILD_INFO), str(BUILD_INFO))


class BuildPy(build_py):
    """Puts the repository's configs/ into the package; an editable install reads them in place."""

    def run(self) -> None:
        if self.editable_mode:
            return super().run()
        package = Path(self.build_lib) / "hvae"
        # setuptools never removes what an earlier build left there, such as a deleted module.
        shutil.rmtree(package, ignore_errors=True)
        super().run()
        for config in sorted(Path("configs").rglob("*.yaml")):
            target = package / config
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(config), str(target))
        return None


setup(
    ext_modules=[
        Extension("hvae._ops", sources=[]),
        Extension("hvae._host", sources=[], optional=True),
    ],
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
)
