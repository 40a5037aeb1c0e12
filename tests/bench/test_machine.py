"""What a record says of the machine."""

import pytest
import torch

from hvae.bench import machine
from hvae.bench.cuda import CudaMeter
from hvae.bench.measure import CpuMeter


@pytest.fixture
def nvidia_smi(monkeypatch, tmp_path):
    """Puts an nvidia-smi on PATH that runs a line of shell."""

    def make(line):
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{line}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return make


def test_a_cpu_has_its_name_and_no_gpu():
    where = machine.machine(CpuMeter())
    assert where["cpu"]
    assert where["gpu"] is None
    assert where["clock"] == "Thread CPU time"


def test_clocks_and_driver_come_from_nvidia_smi(nvidia_smi):
    nvidia_smi("echo '580.1, 345, 3201, 1980, [N/A]'")
    assert machine._nvidia_smi("GPU-0") == {
        "driver": "580.1",
        "sm_clock_mhz": "345",
        "memory_clock_mhz": "3201",
        "max_sm_clock_mhz": "1980",
        "power_limit_w": None,
    }


@pytest.mark.parametrize("line", ["exit 9", "echo 'No devices were found'"])
def test_without_an_answer_they_are_unknown(nvidia_smi, line):
    nvidia_smi(line)
    assert set(machine._nvidia_smi("GPU-0").values()) == {None}


@pytest.mark.gpu
def test_a_gpu_has_its_name():
    gpu = machine.machine(CudaMeter())["gpu"]
    assert gpu["name"] == torch.cuda.get_device_name()
    assert gpu["l2_bytes"] > 0
