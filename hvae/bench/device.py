"""Which device is measured, and by what."""

import torch

from hvae import _native
from hvae.bench.cuda import CallMeter, CudaMeter
from hvae.bench.measure import CpuMeter, Meter
from hvae.errors import UserError


def choose_device(wanted: str | None = None) -> str:
    """Returns "cpu" or "cuda"; without a wish, CUDA where there is a device with kernels for it.

    Raises:
        UserError: `wanted` is neither, or CUDA without a device or without kernels.
    """
    if wanted not in (None, "cpu", "cuda"):
        raise UserError(f"--device: wanted cpu or cuda, got {wanted}")
    if wanted == "cpu":
        return wanted
    missing = _missing_for_cuda()
    if wanted == "cuda" and missing:
        raise UserError(f"--device cuda: {missing}")
    return "cpu" if missing else "cuda"


def kernel_meter(device: str) -> Meter:
    """What measures kernels on a device."""
    return CpuMeter() if device == "cpu" else CudaMeter()


def model_meter(device: str) -> Meter:
    """What measures calls of whole models on a device: one call at least for each figure."""
    return CpuMeter(sample_ms=0.0) if device == "cpu" else CallMeter()


def _missing_for_cuda() -> str:
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    build = _native.build_info()["build"] or {}
    if not build.get("cuda_compiled"):
        return f"there are no CUDA kernels: {build.get('cuda_reason', 'nothing is compiled')}"
    return ""
