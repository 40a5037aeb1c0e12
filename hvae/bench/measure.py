"""How benchmarks measure: variants take turns, and figures are percentiles over the rounds.

Ratios are taken within a round, so that a load which comes and goes on a shared machine meets all
variants. On a CPU the time is that of the calling thread, which leaves out what other processes
take.
"""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

Call = Callable[[], object]


@dataclass(frozen=True)
class Quantiles:
    """The 20th, 50th and 80th percentile of a figure over the rounds."""

    p20: float
    p50: float
    p80: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Quantiles":
        """The percentiles of `values`, which are at least one."""
        levels = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
        p20, p50, p80 = torch.tensor(values, dtype=torch.float64).quantile(levels).tolist()
        return cls(p20, p50, p80)


class Meter(ABC):
    """Measures calls on one device.

    Attributes:
        device: where tensors go.
        clock: what its times are, as a reader would write it.
    """

    device: str
    clock: str

    @abstractmethod
    def sampler(self, call: Call) -> Callable[[], float]:
        """Warms `call` up; returns what takes one figure of it, in milliseconds."""

    @abstractmethod
    def extra_peak_bytes(self, call: Call) -> int:
        """The most memory that `call` holds at once beyond what was held before, in bytes."""

    def with_host(self) -> "Meter | None":
        """What times calls with the host's part in them, if this meter leaves that out."""
        return None

    def interleaved_ms(self, variants: Mapping[str, Call], rounds: int) -> dict[str, list[float]]:
        """Milliseconds of one call of each variant, one figure per round; variants take turns."""
        samplers = {name: self.sampler(call) for name, call in variants.items()}
        times: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(rounds):
            for name, sample in samplers.items():
                times[name].append(sample())
        return times

    def copy_bytes_per_second(self, size: int, rounds: int = 5) -> float:
        """Bytes read and written per second by a plain copy of `size` bytes, the median."""
        source = torch.ones(size, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        times = self.interleaved_ms({"copy": lambda: target.copy_(source)}, rounds)["copy"]
        return 2 * size / (Quantiles.of(times).p50 / 1000)


class CpuMeter(Meter):
    """Thread CPU time, to be used inside `one_thread()`.

    Args:
        sample_ms: a figure averages as many calls as take about this long.
    """

    device = "cpu"
    clock = "Thread CPU time"

    def __init__(self, sample_ms: float = 40.0) -> None:
        self._sample_ms = sample_ms

    def sampler(self, call: Call) -> Callable[[], float]:
        """Warms `call` up; returns what takes one figure of it, in milliseconds."""
        for _ in range(2):  # caches, compilers, the allocator
            call()
        repeats = max(1, round(self._sample_ms / max(_cpu_ms(call, 1), 1e-3)))
        return lambda: _cpu_ms(call, repeats)

    def extra_peak_bytes(self, call: Call) -> int:
        """The most memory that `call` holds at once beyond what was held before, in bytes.

        Torch's profiler reports every allocation and release of the CPU allocator, those of
        compiled graphs and of the ops' results among them, in order; this is the largest of their
        running sums. Memory that a library takes past the allocator is not seen; the CPU kernels
        take none.
        """
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or each start and stop prints a line
        call()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            result = call()
            del result
        assert profiler.profiler is not None
        events = profiler.profiler.kineto_results.events()
        changes = sorted(
            (event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"
        )
        held = peak = 0
        for _, change in changes:
            held += change
            peak = max(peak, held)
        return peak


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on the calling thread alone, the one whose CPU time is measured."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _cpu_ms(call: Call, repeats: int) -> float:
    start = time.thread_time()
    for _ in range(repeats):
        call()
    return (time.thread_time() - start) / repeats * 1000
