"""`hvae info` says what runs and why not what does not."""

import json

import pytest

from hvae import _native
from tests.cli.conftest import Cli

BUILT = {
    "version": "0.1.0", "python": "3.11.7", "platform": "Linux", "torch": "2.13.0",
    "torch_cuda": "13.0", "simd": "avx2",
    "kernels": {"loaded": True, "path": "/x/_ops.so", "reason": "", "mode": "auto"},
    "build": {
        "compiler": "g++ 12", "flags": "-O3", "torch_version": "2.13.0",
        "torch_target_version": "2.11", "cuda_compiled": True, "cuda_reason": "",
        "cuda_archs": ["80", "90"], "nvcc_version": "13.0",
    },
}  # fmt: skip
UNBUILT = {
    **BUILT, "torch_cuda": None, "simd": None, "build": None,
    "kernels": {"loaded": False, "path": None, "reason": "no library", "mode": "auto"},
}  # fmt: skip
NO_CUDA = {**BUILT, "build": {**BUILT["build"], "cuda_compiled": False, "cuda_reason": "no nvcc"}}


@pytest.mark.parametrize(
    ("info", "lines"),
    [
        (BUILT, ["kernels       loaded from /x/_ops.so (HVAE_KERNELS=auto)",
                 "CUDA kernels  compiled for sm_80, sm_90 (nvcc 13.0)"]),
        (NO_CUDA, ["CUDA kernels  not compiled: no nvcc"]),
        (UNBUILT, ["kernels  not loaded, the slower references run: no library"
                   " (HVAE_KERNELS=auto)",
                   "torch    2.13.0 (without CUDA)", "build    nothing is compiled"]),
    ],
)  # fmt: skip
def test_what_runs_is_shown_or_why_not(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, info: dict[str, object], lines: list[str]
) -> None:
    monkeypatch.setattr(_native, "build_info", lambda: info)
    shown = cli("info").stdout.splitlines()
    assert set(lines) <= set(shown)


def test_the_record_is_the_build_information_and_the_devices(cli: Cli) -> None:
    record = json.loads(cli("info", "--json").stdout)
    assert record["kernels"]["mode"] in ("auto", "require", "off")
    assert record["devices"][-1].startswith("CPU")
