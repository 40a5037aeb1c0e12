"""The processes that train one run together, and how they stay of one mind.

    torchrun --nproc-per-node=8 -m hvae train CONFIG

starts them; `joined` finds the others through what torchrun left in the environment. Each takes a
contiguous block of every batch, all of them take every decision alike, and the first one alone
writes. For one process every method here returns its argument and nothing is sent.

Gradients travel by torch's own engine (`hvae.training.sharding`), over NCCL between GPUs. What is
decided on the host travels over gloo, as JSON, in a group of its own that waits as long as a save
takes: no process then sits in a collective of the GPU that could time out.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from hvae.data.sampler import block
from hvae.errors import HvaeError, TrainingError, UserError
from hvae.training.rendezvous import meet

_PATIENCE = timedelta(days=7)  # with a process that lives; a lost one closes its connections
_FAREWELL = timedelta(seconds=10)
_LOST = ("gloo", "NCCL", "ncclUnhandled", "Connection reset", "Connection closed")


class World:
    """The processes of a run as one of them sees it; without arguments, this process alone.

    name     default  meaning
    rank     0        place among them; the first one writes
    size     1        how many there are
    device   None     what this one computes on. None: the GPU if there is one
    control  None     the group that decisions travel in
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        device: torch.device | str | None = None,
        control: dist.ProcessGroup | None = None,
    ) -> None:
        self.rank, self.size = rank, size
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._control = control

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, logs and speaks."""
        return self.rank == 0

    def block(self, count: int) -> range:
        """Returns which of `count` consecutive images are this process's."""
        return block(count, self.rank, self.size)

    def mean(self, values: Tensor, total: int) -> Tensor:
        """Returns the mean over the `total` images of all processes, the same on each.

        Its gradient is that of the mean over all in the images of this process, times the number
        of processes: the engines of torch average gradients over processes, which makes it whole.

        Args:
            values: (N, ...) of this process's images, or of some of them, whose part in the mean
                it then is; N may be 0.
            total: images of all processes together.
        """
        if self.size == 1:
            return values.mean(0) if len(values) == total else values.sum(0) / total
        result: Tensor = cast(Any, _Sum).apply(values.sum(0), self.size) / total
        return result

    def same(self, values: Tensor) -> Tensor:
        """Returns the tensor of the first process, so that all decide alike on a rounded number."""
        if self.size > 1:
            values = values.contiguous()
            dist.broadcast(values, 0)
        return values

    def any(self, flag: bool) -> bool:
        """Returns whether the flag is set in any process."""
        if self.size == 1:
            return flag
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, dist.ReduceOp.MAX, self._control)
        return bool(flags)

    def gather(self, value: Any) -> list[Any]:
        """Returns the JSON values of all processes, in their order."""
        if self.size == 1:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(text)]), self._control)
        longest = max(int(length) for length in lengths)
        texts = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
        padded = torch.nn.functional.pad(text, (0, longest - len(text)))
        dist.all_gather(texts, padded, self._control)
        return [
            json.loads(bytes(text[: int(length)].tolist()))
            for text, length in zip(texts, lengths, strict=True)
        ]

    def rows(self, values: Tensor) -> Tensor:
        """Returns the rows (n, ...) of all processes, in their order, on the CPU.

        Of a process without rows neither shape nor dtype counts; the first one always has some.
        """
        if self.size == 1:
            return values.cpu()
        counts = self.gather(len(values))
        shape, dtype = self.gather([list(values.shape[1:]), str(values.dtype)])[0]
        padded = torch.zeros(
            max(counts), *shape, dtype=getattr(torch, dtype.removeprefix("torch."))
        )
        if len(values):
            padded[: len(values)] = values
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, self._control)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Raises an expected error that any process meets inside this context on all of them.

        Nothing inside may wait for other processes. Leaving the context does.
        """
        if self.size == 1:
            yield
            return
        error: HvaeError | None = None
        try:
            yield
        except HvaeError as raised:
            error = raised
        errors = self.gather(None if error is None else [error.exit_code, str(error)])
        for rank, found in enumerate(errors):
            if found is None:
                continue
            code, message = found
            prefix = "" if rank == 0 else f"process {rank} of {self.size}: "
            kind = UserError if code == UserError.exit_code else TrainingError
            raise kind(prefix + message) from None

    def by_first(self, function: Callable[[], Any]) -> Any:
        """Calls a function in the first process and returns its result, a JSON value, in all.

        Raises:
            HvaeError: in all, what it raises in the first.
        """
        result = None
        with self.agreed():
            if self.first:
                result = function()
        return self.gather(result if self.first else None)[0]

    def in_step(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yields from an iterator that ends alike in all processes; an error in one ends all."""
        while True:
            with self.agreed():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    @contextmanager
    def noticing_losses(self) -> Iterator[None]:
        """Turns what torch raises when another process is gone into one line.

        Raises:
            TrainingError: another process ended inside this context.
        """
        try:
            yield
        except RuntimeError as error:
            lost = isinstance(error, dist.DistError) or any(word in str(error) for word in _LOST)
            if self.size == 1 or isinstance(error, HvaeError) or not lost:
                raise
            raise TrainingError(
                f"process {self.rank} of {self.size} has lost another one, or the way to it "
                f"({str(error).split('. ')[0]}). The run goes on from its latest checkpoint by "
                "the same command, and under torchrun --max-restarts by itself"
            ) from None

    def leave_together(self) -> None:
        """Waits a moment for all to be done: torchrun ends the rest once one has failed."""
        if self.size > 1:
            with suppress(RuntimeError):  # one that is gone already
                dist.monitored_barrier(self._control, timeout=_FAREWELL)


def launched() -> int:
    """Returns how many processes torchrun started together; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined() -> Iterator[World]:
    """Joins the other processes of a torchrun command; without one, this process is alone.

    Raises:
        UserError: if there are more processes than GPUs on a machine that has any.
    """
    size = launched()
    if size == 1:
        yield World()
        return
    local_rank, device = int(os.environ["LOCAL_RANK"]), torch.device("cpu")
    if torch.cuda.is_available():
        gpus = torch.cuda.device_count()
        if local_rank >= gpus:
            raise UserError(
                f"torchrun started process {local_rank + 1} on a machine with {gpus} GPUs; give "
                f"--nproc-per-node={gpus} at most"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    found, rank, size = next(rendezvous("env://"))
    store = meet(found, rank, size)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        control = dist.new_group(backend="gloo", timeout=_PATIENCE)
        yield World(rank, size, device, control)
    finally:
        dist.destroy_process_group()


class _Sum(torch.autograd.Function):
    """The sum over processes, whose gradient each multiplies by their number; see `World.mean`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, size: int) -> Tensor:
        ctx.size = size
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.size, None
