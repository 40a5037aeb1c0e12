"""Loading of the compiled kernels, in the three modes, and what `build_info` tells about them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from hvae import _native
from hvae.errors import UserError

# Known answers of Philox4x32-10, from the test vectors its authors publish.
PHILOX_ANSWERS = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

OPS = [
    "gaussian_latent",
    "gaussian_latent_bwd",
    "gaussian_sample",
    "gaussian_sample_bwd",
    "logistic_mixture_nll",
    "logistic_mixture_nll_bwd",
]


def python(code: str, kernels: str) -> subprocess.CompletedProcess[str]:
    """Runs the code in a fresh interpreter with warnings shown, where modes can be told apart."""
    environment = {**os.environ, "HVAE_KERNELS": kernels}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def test_kernels_load_silently_when_required() -> None:
    done = python("import hvae.ops; print(hvae._native.status().loaded)", "require")
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_off_runs_the_references_and_says_so_once() -> None:
    done = python("import hvae.ops; print(hvae._native.status().loaded)", "off")
    assert done.stdout == "False\n"
    assert done.stderr.count("hvae runs its reference ops: HVAE_KERNELS=off") == 1


def test_import_hvae_alone_loads_neither_kernels_nor_torch() -> None:
    done = python("import sys, hvae; print({'torch', 'hvae._native'} & set(sys.modules))", "off")
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_unknown_mode_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HVAE_KERNELS", "on")
    with pytest.raises(UserError, match=r"one of auto, require, off; got 'on'"):
        _native._mode()


@pytest.fixture
def fresh_status(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A `status` that has not looked yet."""
    monkeypatch.setattr(_native, "status", _native.status.__wrapped__)
    return monkeypatch


def test_missing_library_warns_in_auto_mode(fresh_status: pytest.MonkeyPatch) -> None:
    fresh_status.setenv("HVAE_KERNELS", "auto")
    fresh_status.setattr(_native, "_LIBRARY", Path("/nowhere/_ops.so"))
    with pytest.warns(UserWarning, match=r"reference ops: .*not compiled.*slower.*make env"):
        _native.ensure_loaded()


def test_broken_library_is_an_import_error_when_required(
    fresh_status: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "_ops.so"
    broken.write_bytes(b"no library")
    fresh_status.setenv("HVAE_KERNELS", "require")
    fresh_status.setattr(_native, "_LIBRARY", broken)
    with pytest.raises(ImportError, match=r"HVAE_KERNELS=require, but .*_ops.so does not load"):
        _native.ensure_loaded()


def test_build_info_is_json_and_complete() -> None:
    info = json.loads(json.dumps(_native.build_info()))
    assert info["torch"] == torch.__version__
    assert info["kernels"]["mode"] == os.environ.get("HVAE_KERNELS", "auto")
    assert info["simd"] in (
        {"avx512", "avx2", "baseline"} if info["build"]["host_compiled"] else {None}
    )
    assert "-O3" in info["build"]["flags"]
    assert info["build"]["torch_target_version"].startswith("0x020b")


def test_build_info_gives_a_reason_for_each_part_that_is_missing() -> None:
    build = _native.build_info()["build"]
    for part in ("cuda", "host"):
        assert build[f"{part}_compiled"] == (not build[f"{part}_reason"])
    assert build["cuda_compiled"] == bool(build["cuda_archs"]) == bool(build["nvcc_version"])


def test_build_info_of_an_uncompiled_tree_has_no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "_BUILD_INFO", Path("/nowhere/_build.json"))
    monkeypatch.setattr(_native, "_host", None)
    info = _native.build_info()
    assert info["build"] is None
    assert info["simd"] is None


@pytest.mark.parametrize("op", OPS)
def test_library_registers_every_kernel_that_was_compiled(op: str) -> None:
    if not _native.status().loaded:
        pytest.skip(_native.status().reason)
    import hvae.ops  # noqa: F401  defines the schemas

    devices = ["CPU", "CUDA"] if _native.build_info()["build"]["cuda_compiled"] else ["CPU"]
    for device in devices:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"hvae::{op}", device), device


@pytest.fixture(scope="module")
def host() -> ModuleType:
    return pytest.importorskip("hvae._host", reason="built without Python's headers")


@pytest.mark.parametrize(("counter", "key", "words"), PHILOX_ANSWERS)
def test_philox_known_answers(
    host: ModuleType, counter: tuple[int, ...], key: tuple[int, ...], words: tuple[int, ...]
) -> None:
    assert host.philox4x32(*counter, *key) == words


def test_philox_normals_are_finite_and_standard(host: ModuleType) -> None:
    blocks = [host.philox_normal(seed=7, stream=1, sample=3, block=b) for b in range(4096)]
    normals = torch.tensor(blocks, dtype=torch.float64).flatten()
    assert normals.isfinite().all()
    # Four standard errors of a mean and of a variance over 16 384 draws.
    assert normals.mean().abs() < 4 / 128
    assert (normals.var() - 1).abs() < 4 * 2**0.5 / 128
