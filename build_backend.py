"""Builds hvae against the PyTorch that is already installed, and never fetches another one.

PyTorch must not be a build requirement: an isolated build would download gigabytes and compile
against a torch other than the one in use. This in-tree backend is setuptools', plus one search:
an isolated build hides the target environment's packages, so torch is looked up in the
environment's folders directly. Nothing of it is imported.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import os
import re
import site
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from setuptools import build_meta

MIN_TORCH = (2, 11)
_INSTALL_FIRST = 'install it first, then hvae: pip install "torch>={}.{}"'.format(*MIN_TORCH)

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class TorchInstall:
    """Where the installed PyTorch lives (the folder with `include` and `lib`) and its version."""

    root: Path
    version: str


def find_torch() -> TorchInstall:
    """Return the PyTorch of the environment that hvae is being built for.

    Raises:
        SystemExit: no torch is found, or it is older than `MIN_TORCH`; the message is one line.
    """
    spec = importlib.util.find_spec("torch") or importlib.machinery.PathFinder.find_spec(
        "torch", list(_site_folders())
    )
    if spec is None or spec.origin is None:
        raise SystemExit(
            f"hvae: PyTorch is not installed here; {_INSTALL_FIRST} "
            "(installed already? then add --no-build-isolation)"
        )
    root = Path(spec.origin).parent
    version = _version_of(root)
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < MIN_TORCH:
        raise SystemExit(f"hvae: PyTorch {version} at {root} is too old; {_INSTALL_FIRST}")
    return TorchInstall(root, version)


def _site_folders() -> Iterator[str]:
    """The package folders of the target environment, which isolation takes off `sys.path`."""
    yield from site.getsitepackages()
    yield site.getusersitepackages()
    if venv := os.environ.get("VIRTUAL_ENV"):
        yield sysconfig.get_path("purelib", "venv", vars={"base": venv, "platbase": venv})


def _version_of(root: Path) -> str:
    match = re.search(r"^__version__ = ['\"](.+)['\"]", (root / "version.py").read_text(), re.M)
    if match is None:
        raise SystemExit(f"hvae: {root / 'version.py'} names no version; reinstall PyTorch")
    return match[1]


def _after_finding_torch(hook: Callable[P, R]) -> Callable[P, R]:
    """The hook, preceded by the search: whichever runs first then reports a missing torch."""

    @functools.wraps(hook)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        find_torch()
        return hook(*args, **kwargs)

    return checked


get_requires_for_build_sdist = build_meta.get_requires_for_build_sdist
build_sdist = build_meta.build_sdist

get_requires_for_build_wheel = _after_finding_torch(build_meta.get_requires_for_build_wheel)
prepare_metadata_for_build_wheel = _after_finding_torch(build_meta.prepare_metadata_for_build_wheel)
build_wheel = _after_finding_torch(build_meta.build_wheel)

get_requires_for_build_editable = _after_finding_torch(build_meta.get_requires_for_build_editable)
prepare_metadata_for_build_editable = _after_finding_torch(
    build_meta.prepare_metadata_for_build_editable
)
build_editable = _after_finding_torch(build_meta.build_editable)
