"""What a benchmark finds, as it is kept: rows of figures, and the machine they come from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hvae import checkpoint
from hvae.bench.machine import machine
from hvae.bench.measure import Meter, Quantiles, one_thread
from hvae.errors import UserError


@dataclass(frozen=True)
class Comparison:
    """The variants of one op on one case.

    Attributes:
        case: shape, dtype, options and pass, as a reader would write them.
        time_ms: time of a call, by variant.
        ratio: time by the time of the variant "fused" in the same round, by variant.
        extra_peak_bytes: memory held at once beyond the inputs, by variant.
        moved_bytes: what the fused op reads and writes, counted.
        copy_bytes_per_second: of a plain copy in the same run, for comparison.
        call_ms: time of a call with the host's part in it, by variant; on CUDA only.
    """

    case: str
    time_ms: Mapping[str, Quantiles]
    ratio: Mapping[str, Quantiles]
    extra_peak_bytes: Mapping[str, int]
    moved_bytes: int
    copy_bytes_per_second: float
    call_ms: Mapping[str, Quantiles] | None = None

    @property
    def label(self) -> str:
        """What tells the row from others of a record."""
        return self.case

    @property
    def ms(self) -> float:
        """What records are compared by: the fused op's median."""
        return self.time_ms["fused"].p50

    @property
    def fused_bytes_per_second(self) -> float:
        """The rate at which the fused op moves `moved_bytes`."""
        return self.moved_bytes / (self.ms / 1000)


@dataclass(frozen=True)
class StepFigures:
    """What a training step of one variant takes.

    Attributes:
        variant: its name.
        parameters: numbers the model learns.
        time_ms: time of forward, backward and update.
        ratio: that time over the one of "vdvae" in the same round.
        saved_bytes: tensors that the forward keeps for the backward, parameters aside.
        resident_bytes: peak over three steps: on a CPU of a process of its own, on CUDA of what
            torch allocates for the variant.
        idle_bytes: what was held before the first one.
        batch: images of a step.
    """

    variant: str
    parameters: int
    time_ms: Quantiles
    ratio: Quantiles
    saved_bytes: int
    resident_bytes: int
    idle_bytes: int
    batch: int = 8

    @property
    def label(self) -> str:
        """What tells the row from others of a record."""
        return f"{self.variant}, batch {self.batch}"

    @property
    def ms(self) -> float:
        """What records are compared by: the median of a step."""
        return self.time_ms.p50


@dataclass(frozen=True)
class SamplingFigures:
    """What drawing a batch of images takes one variant.

    Attributes:
        variant: its name.
        batch: images of a call.
        time_ms: time of the call.
        ratio: that time over the one of the same preset with its kernels in the same round.
    """

    variant: str
    batch: int
    time_ms: Quantiles
    ratio: Quantiles

    @property
    def label(self) -> str:
        """What tells the row from others of a record."""
        return f"{self.variant}, batch {self.batch}"

    @property
    def ms(self) -> float:
        """What records are compared by: the median of a call."""
        return self.time_ms.p50


Row = Comparison | StepFigures | SamplingFigures

_ROWS: Mapping[str, TypeAdapter[Any]] = {
    "kernels": TypeAdapter(list[Comparison]),
    "step": TypeAdapter(list[StepFigures]),
    "sampling": TypeAdapter(list[SamplingFigures]),
}
# What a report says of a machine.
_MACHINE = {"date", "cpu", "threads", "simd", "torch", "commit"}


@dataclass(frozen=True)
class Record:
    """The rows of one benchmark ("kernels", "step" or "sampling"), and where they were measured."""

    what: str
    machine: Mapping[str, Any]
    rows: Sequence[Row]

    @classmethod
    def of(cls, what: str, rows: Sequence[Row], meter: Meter) -> "Record":
        """A record of rows just measured here, on one thread."""
        with one_thread():
            return cls(what, machine(meter), rows)

    @classmethod
    def read(cls, file: Path) -> "Record":
        """The record in a file.

        Raises:
            UserError: the file cannot be read, or is no record of a benchmark.
        """
        stored = checkpoint.read_json(file)
        try:
            rows, where = stored["comparisons"], stored["machine"]
            # Records of the first version do not say what they are of.
            what = stored.get("what") or ("kernels" if "case" in rows[0] else "step")
            if not _MACHINE.issubset(where):
                raise KeyError("machine")
            return cls(what, where, _ROWS[what].validate_python(rows))
        except (KeyError, TypeError, IndexError, AttributeError, ValidationError):
            raise UserError(
                f"{file} is not a record of a benchmark; wanted one that --save wrote"
            ) from None

    def as_json(self) -> dict[str, Any]:
        """The record as JSON has it."""
        rows = [asdict(row) for row in self.rows]
        return {"what": self.what, "machine": dict(self.machine), "comparisons": rows}
