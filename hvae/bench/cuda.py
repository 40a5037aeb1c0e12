"""How calls are measured on a CUDA device: kernels by events, whole calls by the clock on the wall.

`CudaMeter` times what the device does: its queue is held until the host has launched the whole
call, so that launch gaps stay out, and the L2 cache is cold, so that bandwidths are those of device
memory. `CallMeter` times host and device together, which is what a loop over calls takes.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from hvae.bench.measure import Call, Meter

_WARM_UP_CALLS = 5
# Cycles of the device in a second at most: a device that runs slower holds its queue longer.
_CLOCK_HZ = 2e9


class CallMeter(Meter):
    """Wall time of calls on a CUDA device, synchronised before and after, per call.

    Args:
        sample_ms: a figure averages as many calls as take about this long.
        cuda: `torch.cuda`, or what stands in for it.
        device: where tensors go.
    """

    clock = "Wall time of synchronised calls"

    def __init__(
        self, sample_ms: float = 40.0, *, cuda: Any = torch.cuda, device: str = "cuda"
    ) -> None:
        self._sample_ms = sample_ms
        self._cuda = cuda
        self.device = device

    def sampler(self, call: Call) -> Callable[[], float]:
        """Warms `call` up; returns what takes one figure of it, in milliseconds."""
        for _ in range(_WARM_UP_CALLS):
            call()
        repeats = max(1, round(self._sample_ms / max(self._wall_ms(call, 1), 1e-3)))
        return lambda: self._wall_ms(call, repeats)

    def extra_peak_bytes(self, call: Call) -> int:
        """The most memory of torch's allocator that `call` holds beyond what was held before."""
        call()
        self._cuda.synchronize()
        self._cuda.reset_peak_memory_stats()
        before: int = self._cuda.memory_allocated()
        result = call()
        peak: int = self._cuda.max_memory_allocated()
        del result
        return peak - before

    def _wall_ms(self, call: Call, repeats: int) -> float:
        self._cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        self._cuda.synchronize()
        return (time.perf_counter() - start) / repeats * 1000


class CudaMeter(CallMeter):
    """Device time of a call between two CUDA events, with a cold L2 cache.

    Args:
        calls: a figure is the median of so many calls.
        cuda: `torch.cuda`, or what stands in for it.
        device: where tensors go.
    """

    clock = "Device time by CUDA events, cold L2"

    def __init__(self, calls: int = 5, *, cuda: Any = torch.cuda, device: str = "cuda") -> None:
        super().__init__(cuda=cuda, device=device)
        self._calls = calls
        l2_bytes = cuda.get_device_properties(device).L2_cache_size
        self._larger_than_l2 = torch.zeros(l2_bytes, dtype=torch.float32, device=device)

    def with_host(self) -> Meter:
        """What times calls with the host's part in them."""
        return CallMeter(sample_ms=10.0, cuda=self._cuda, device=self.device)

    def sampler(self, call: Call) -> Callable[[], float]:
        """Warms `call` up; returns what takes one figure of it, in milliseconds."""
        for _ in range(_WARM_UP_CALLS):
            call()
        self._cuda.synchronize()
        start = time.perf_counter()
        call()
        launch_seconds = time.perf_counter() - start
        hold_cycles = int(2 * launch_seconds * _CLOCK_HZ)

        def sample() -> float:
            pairs = []
            for _ in range(self._calls):
                begin, end = (self._cuda.Event(enable_timing=True) for _ in range(2))
                # Read, not written: lines to write back would be paid for by the call.
                self._larger_than_l2.max()
                self._cuda._sleep(hold_cycles)
                begin.record()
                call()
                end.record()
                pairs.append((begin, end))
            self._cuda.synchronize()
            return float(statistics.median(begin.elapsed_time(end) for begin, end in pairs))

        return sample
