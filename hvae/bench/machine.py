"""Where figures were measured: processor, device, versions and commit."""

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from hvae import _native
from hvae.bench.measure import Meter

# Says where files lie here. That the kernels are loaded goes without saying in a result.
_LOCAL = ("kernels",)
# What nvidia-smi is asked for, by the name it gets in a record. Clocks are those of the moment.
_SMI = {
    "driver": "driver_version",
    "sm_clock_mhz": "clocks.sm",
    "memory_clock_mhz": "clocks.mem",
    "max_sm_clock_mhz": "clocks.max.sm",
    "power_limit_w": "power.limit",
}


def machine(meter: Meter) -> dict[str, Any]:
    """Where and with what figures were measured."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "clock": meter.clock,
        "device": meter.device,
        "gpu": _gpu() if meter.device.startswith("cuda") else None,
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "commit": _commit(),
        **{k: v for k, v in _native.build_info().items() if k not in _LOCAL},
    }


def _gpu() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties()
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": properties.L2_cache_size,
        **_nvidia_smi(f"GPU-{properties.uuid}"),  # its index there may be another
    }


def _nvidia_smi(device: str) -> dict[str, str | None]:
    """What `nvidia-smi` tells of a device; None for what it does not tell."""
    values = _output(
        "nvidia-smi",
        f"--id={device}",
        f"--query-gpu={','.join(_SMI.values())}",
        "--format=csv,noheader,nounits",
    ).split(", ")
    if len(values) != len(_SMI):
        return dict.fromkeys(_SMI)
    known = (None if value.startswith("[") else value for value in values)  # "[N/A]"
    return dict(zip(_SMI, known, strict=True))


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _commit() -> str:
    return _output("git", "describe", "--always", "--dirty", "--abbrev=10") or "unknown"


def _output(*command: str) -> str:
    """What a command prints, or nothing if it is missing or fails."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
            cwd=Path(__file__).parent,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
