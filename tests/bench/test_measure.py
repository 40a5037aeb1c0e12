"""Percentiles, turns of the variants, and memory, on a CPU and on what stands in for CUDA."""

import types

import pytest
import torch

from hvae.bench.cuda import CallMeter, CudaMeter
from hvae.bench.measure import CpuMeter, Quantiles


class FakeCuda:
    """A device on which a call advances the time by `call_ms`, and all else by something else."""

    def __init__(self, call_ms: float = 3.0) -> None:
        self.now = 0.0
        self.log: list[str] = []
        self.call_ms = call_ms

    def call(self) -> object:
        self.now += self.call_ms
        self.log.append("call")
        return None

    def Event(self, enable_timing: bool) -> types.SimpleNamespace:
        assert enable_timing
        event = types.SimpleNamespace(time=None)

        def record() -> None:
            event.time = self.now
            self.log.append("event")

        event.record = record
        event.elapsed_time = lambda end: end.time - event.time
        return event

    def _sleep(self, cycles: int) -> None:
        assert cycles >= 0
        self.now += 100
        self.log.append("hold")

    def synchronize(self) -> None:
        self.now += 1000
        self.log.append("synchronize")

    def get_device_properties(self, device: str) -> types.SimpleNamespace:
        return types.SimpleNamespace(L2_cache_size=64)

    def reset_peak_memory_stats(self) -> None:
        self.log.append("reset")

    def memory_allocated(self) -> int:
        return 100

    def max_memory_allocated(self) -> int:
        return 100 + 7 * (self.log[-2:] == ["reset", "call"])


def test_quantiles_are_those_of_the_values():
    assert Quantiles.of([5.0, 1.0, 3.0, 2.0, 4.0, 6.0]) == Quantiles(2.0, 3.5, 5.0)


def test_peak_counts_what_is_held_at_once():
    def call():
        kept = torch.ones(1000)  # 4000 bytes
        for _ in range(3):
            kept = kept + torch.ones(1000)  # and 8000 more while they are added
        return kept

    assert CpuMeter().extra_peak_bytes(call) == 12_000


def test_every_round_times_every_variant():
    called = []
    variants = {name: lambda name=name: called.append(name) for name in ("a", "b")}
    times = CpuMeter(sample_ms=0.0).interleaved_ms(variants, rounds=4)
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4}
    assert called[-8:] == ["a", "b"] * 4


def test_a_copy_counts_what_is_read_and_written(monkeypatch):
    meter = CpuMeter()
    monkeypatch.setattr(meter, "interleaved_ms", lambda variants, rounds: {"copy": [2.0]})
    assert meter.copy_bytes_per_second(10**6) == 10**9


def test_events_enclose_the_call_alone_behind_a_held_queue():
    cuda = FakeCuda(call_ms=3.0)
    sample = CudaMeter(calls=2, cuda=cuda, device="cpu").sampler(cuda.call)
    cuda.log.clear()
    assert sample() == 3.0
    assert cuda.log == ["hold", "event", "call", "event"] * 2 + ["synchronize"]


def test_the_cache_is_displaced_by_four_times_its_size():
    meter = CudaMeter(cuda=FakeCuda(), device="cpu")
    assert meter._larger_than_l2.nbytes == 4 * 64


def test_calls_with_their_host_part_are_synchronised_before_and_after():
    cuda = FakeCuda()
    meter = CudaMeter(cuda=cuda, device="cpu").with_host()
    assert isinstance(meter, CallMeter)
    sample = meter.sampler(cuda.call)
    cuda.log.clear()
    assert sample() > 0
    assert [cuda.log[0], cuda.log[-1]] == ["synchronize"] * 2
    assert set(cuda.log[1:-1]) == {"call"}


def test_the_peak_on_a_device_is_beyond_what_was_held():
    cuda = FakeCuda()
    assert CudaMeter(cuda=cuda, device="cpu").extra_peak_bytes(cuda.call) == 7


@pytest.mark.gpu
@pytest.mark.parametrize("meter", [CudaMeter, CallMeter])
def test_a_device_copy_is_neither_instant_nor_faster_than_memory(meter):
    rate = meter().copy_bytes_per_second(2**28)
    assert 1e10 < rate < 2e13


@pytest.mark.gpu
def test_the_peak_of_a_device_call_is_its_result():
    x = torch.ones(2**20, device="cuda")
    assert CudaMeter().extra_peak_bytes(lambda: x + 1) == x.nbytes
