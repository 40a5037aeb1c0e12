"""Installation: metadata, shipped files, and a build that uses the torch already installed."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

import hvae
from hvae import resources
from hvae.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# What a build reads; copied, so that a test never builds in the working tree.
SOURCES = ["build_backend.py", "configs", "csrc", "hvae", "LICENSE", "MANIFEST.in"]
SOURCES += ["pyproject.toml", "README.md", "setup.py"]


def load_backend() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_backend", ROOT / "build_backend.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_backend"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


build_backend = load_backend()


def test_torch_is_a_runtime_requirement_and_never_one_of_the_build() -> None:
    build = [Requirement(line).name for line in PYPROJECT["build-system"]["requires"]]
    assert sorted(build) == ["ninja", "pybind11", "setuptools"]
    torch = next(r for r in PYPROJECT["project"]["dependencies"] if r.startswith("torch>"))
    assert torch == "torch>={}.{}".format(*build_backend.MIN_TORCH)


def test_pinned_versions_satisfy_the_declared_ranges() -> None:
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    project = PYPROJECT["project"]
    ranges = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, ranges):
        if requirement.name != "torch":
            assert requirement.specifier.contains(pins[requirement.name]), requirement


def test_installed_metadata_names_the_version_and_the_command() -> None:
    assert importlib.metadata.version("hvae") == hvae.__version__
    scripts = importlib.metadata.entry_points(group="console_scripts", name="hvae")
    assert [script.value for script in scripts] == ["hvae.cli.main:main"]


def test_config_dir_of_a_clone_is_its_configs_folder() -> None:
    assert (resources.config_dir() / "fashion_mini.yaml").is_file()


def test_config_dir_of_a_wheel_is_inside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hvae" / "configs").mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "hvae" / "resources.py"))
    assert resources.config_dir() == tmp_path / "hvae" / "configs"


def test_missing_config_dir_names_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "hvae" / "resources.py"))
    with pytest.raises(UserError, match=r"hvae/configs and .*configs; reinstall hvae"):
        resources.config_dir()


@pytest.fixture
def target_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package folder of an environment whose packages an isolated build cannot import."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(build_backend.site, "getsitepackages", lambda: [str(tmp_path)])
    monkeypatch.setattr(build_backend.site, "getusersitepackages", lambda: str(tmp_path / "user"))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    return tmp_path


def plant_torch(site_folder: Path, version: str) -> Path:
    root = site_folder / "torch"
    root.mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('a build must not import torch')")
    (root / "version.py").write_text(f"__version__ = '{version}'\n")
    return root


@pytest.mark.parametrize("version", ["2.11.0", "2.13.0+cu130", "3.0.0a0+git123"])
def test_isolated_build_finds_torch_without_importing_it(target_site: Path, version: str) -> None:
    root = plant_torch(target_site, version)
    assert build_backend.find_torch() == build_backend.TorchInstall(root, version)


def test_torch_of_the_active_virtual_environment_is_found(
    target_site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = target_site / "venv"
    purelib = sysconfig.get_path("purelib", "venv", vars={"base": str(venv)})
    root = plant_torch(Path(purelib), "2.13.0")
    monkeypatch.setenv("VIRTUAL_ENV", str(venv))
    assert build_backend.find_torch().root == root


def test_missing_torch_is_one_line_that_says_what_to_install(target_site: Path) -> None:
    with pytest.raises(SystemExit, match=r'not installed here; .*pip install "torch>=2\.11"') as e:
        build_backend.find_torch()
    assert "\n" not in str(e.value)


def test_an_old_torch_is_refused(target_site: Path) -> None:
    plant_torch(target_site, "2.10.1")
    with pytest.raises(SystemExit, match=r"PyTorch 2\.10\.1 at .* is too old; install"):
        build_backend.find_torch()


@pytest.mark.parametrize("hook", ["get_requires_for_build_wheel", "build_wheel", "build_editable"])
def test_every_hook_that_compiles_looks_for_torch_first(target_site: Path, hook: str) -> None:
    with pytest.raises(SystemExit, match="PyTorch is not installed here"):
        getattr(build_backend, hook)("unused")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone")
    ignored = shutil.ignore_patterns("*.so", "_build.json", "__pycache__")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    return folder


def build_wheel(clone: Path, **options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps"]
    return subprocess.run(
        [*command, "-w", str(clone / "dist"), str(clone)],
        env={**os.environ, **options},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_wheel_holds_all_that_a_user_needs(clone: Path, tmp_path: Path) -> None:
    stale = clone / "build" / f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    (stale / "hvae").mkdir(parents=True)
    (stale / "hvae" / "deleted_module.py").touch()
    done = build_wheel(clone, HVAE_CUDA="0")  # CUDA changes the library, not what is shipped
    assert done.returncode == 0, done.stdout + done.stderr

    wheel = zipfile.ZipFile(next((clone / "dist").glob("hvae-*.whl")))
    names = set(wheel.namelist())
    wanted = {"hvae/_ops.so", f"hvae/_host{sysconfig.get_config_var('EXT_SUFFIX')}"}
    wanted |= {"hvae/_build.json", "hvae/_host.pyi", "hvae/py.typed"}
    wanted |= {f"hvae/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    # Every module, since a folder without __init__.py is left out in silence; and the data.
    shipped = [*(ROOT / "hvae").rglob("*.py"), *(ROOT / "hvae/data/embedded").rglob("*.*")]
    wanted |= {str(path.relative_to(ROOT)) for path in shipped}
    assert not wanted - names
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    assert "hvae/deleted_module.py" not in names
    assert not [name for name in names if name.startswith(("tests/", "csrc/", "configs/"))]

    wheel.extractall(tmp_path)
    check = "import hvae.ops, hvae.resources as r; print(r.config_dir())"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", check],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "HVAE_KERNELS": "require"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.strip() == str(tmp_path / "hvae" / "configs"), ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"HVAE_CUDA": "yes"}, "hvae: HVAE_CUDA must be auto, 0 or 1, and is 'yes'"),
        ({"HVAE_CUDA": "1", "CUDA_HOME": "/nowhere"}, "HVAE_CUDA=1, but there is no nvcc in"),
        ({"CXX": "no-such-compiler"}, "'no-such-compiler' is not on PATH"),
    ],
)
def test_wrong_build_options_stop_the_build_with_one_line(
    clone: Path, options: dict[str, str], message: str
) -> None:
    done = build_wheel(clone, **options)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
