"""The compiled kernels: loads them, or says why the pure-PyTorch references run instead.

The only module that touches `hvae/_ops.so` (kernels, registered with torch's dispatcher) and
`hvae._host` (host code without tensors, left out where Python's headers are missing). The
environment variable `HVAE_KERNELS` chooses:

    auto      default: the kernels, or the references with one warning
    require   a missing or broken kernel library is an error
    off       the references
"""

from __future__ import annotations

import functools
import json
import os
import platform
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from hvae import __version__
from hvae.errors import KernelsUnavailableError, UserError

try:
    from hvae import _host
except ImportError:
    _host = None  # type: ignore[assignment]

Mode = Literal["auto", "require", "off"]

_LIBRARY = Path(__file__).with_name("_ops.so")
_BUILD_INFO = Path(__file__).with_name("_build.json")
_HOW_TO_BUILD = "build them with `make env`, or `pip install --no-build-isolation -e .` in a clone"


@dataclass(frozen=True)
class NativeStatus:
    """Whether the compiled kernels are in use, from which file, and if not, why not."""

    loaded: bool
    path: Path | None
    reason: str
    mode: Mode


@functools.cache
def status() -> NativeStatus:
    """The state of the kernels. The first call reads `HVAE_KERNELS` and loads them; it lasts.

    Raises:
        UserError: `HVAE_KERNELS` is not one of auto, require, off.
    """
    return _load(_mode())


def ensure_loaded() -> None:
    """Loads the kernels once, for `hvae.ops`; warns, or fails in `require` mode, if that fails.

    Raises:
        KernelsUnavailableError: `HVAE_KERNELS=require` and the kernels cannot be loaded.
        UserError: `HVAE_KERNELS` is not one of auto, require, off.
    """
    now = status()
    if now.loaded:
        return
    if now.mode == "require":
        raise KernelsUnavailableError(f"HVAE_KERNELS=require, but {now.reason}; {_HOW_TO_BUILD}")
    advice = "" if now.mode == "off" else f". They are slower; for the kernels, {_HOW_TO_BUILD}"
    warnings.warn(f"hvae runs its reference ops: {now.reason}{advice}", stacklevel=2)


def build_info() -> dict[str, Any]:
    """What was built, with what, and what is in use; every value is JSON-able.

    Keys: `version`, `python`, `platform`, `torch`, `torch_cuda` (the CUDA version torch was built
    for, or None), `kernels` (a `NativeStatus`), `simd` (`"avx512"`, `"avx2"`, `"baseline"`, or None
    without the host module), and `build`, None if nothing was compiled, else: `compiler`, `flags`,
    `torch_version` and `torch_target_version` compiled against, `cuda_compiled`, `cuda_reason`
    (why not; empty if compiled), `cuda_archs`, `nvcc_version`, `host_compiled`, `host_reason`.
    """
    now = status()
    return {
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "kernels": {**asdict(now), "path": str(now.path) if now.path else None},
        "simd": _host.simd_level() if _host else None,
        "build": json.loads(_BUILD_INFO.read_text()) if _BUILD_INFO.exists() else None,
    }


def _mode() -> Mode:
    value = os.environ.get("HVAE_KERNELS", "auto")
    if value not in get_args(Mode):
        raise UserError(f"HVAE_KERNELS must be one of {', '.join(get_args(Mode))}; got {value!r}")
    return value  # type: ignore[return-value]


def _load(mode: Mode) -> NativeStatus:
    if mode == "off":
        return NativeStatus(False, None, "HVAE_KERNELS=off", mode)
    if not _LIBRARY.exists():
        return NativeStatus(False, None, "the kernels are not compiled (no hvae/_ops.so)", mode)
    try:
        torch.ops.load_library(str(_LIBRARY))
    except OSError as error:
        return NativeStatus(False, _LIBRARY, f"{_LIBRARY} does not load: {error}", mode)
    return NativeStatus(True, _LIBRARY, "", mode)
