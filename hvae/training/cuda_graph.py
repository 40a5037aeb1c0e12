"""Forward and backward of a batch as one CUDA graph: recorded once, then one launch a step.

A small step spends its time launching kernels: thousands of them, each shorter than its launch. A
graph has them all in one. It repeats what was recorded to the letter, at the same addresses, so
all that changes from step to step has to be a tensor that is copied in: the batch, the noise state
and the weights of the objective. Nothing on the way may wait for the device or ask it for a number.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from hvae.errors import UserError
from hvae.training.config import TrainConfig

Run = Callable[..., tuple[Tensor, ...]]

# Before they are recorded, libraries choose their algorithms and compilers do their work.
_WARM_UPS = 3


class Graph(Protocol):
    """What records a call and repeats it."""

    def record(self, run: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Returns the tensors that `run` returned; they hold its results after `replay`."""

    def replay(self) -> None:
        """Does again what `run` did, with what its inputs hold now."""


class CudaGraph:
    """A `Graph` on the current GPU."""

    def __init__(self) -> None:
        self.graph = torch.cuda.CUDAGraph()

    def record(self, run: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Records a call that has been warmed up; what it computes counts after `replay` alone.

        Its memory is its own for good; what the warm-ups left in torch's cache is freed first.
        """
        # The default mode would refuse what the loader's thread does meanwhile.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            return run()

    def replay(self) -> None:
        """Launches it on the current stream."""
        self.graph.replay()


class GraphedBackward:
    """Calls a function that adds gradients to parameters; once recorded, as a graph.

    The first batch decides the shapes; a batch of others, such as a cut last one, goes through the
    function as it is. What is returned, and the gradients, are overwritten by the next call.

    Args:
        parameters: whose gradients are None at every call.
        graph: what records.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], graph: Graph | None = None) -> None:
        self.parameters = list(parameters)
        self.graph = CudaGraph() if graph is None else graph
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: tuple[Tensor, ...] = ()
        self.gradients: list[Tensor | None] = []

    def __call__(self, run: Run, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns what `run` returns for these inputs, and sets the gradients that it would.

        Args:
            run: the same at every call, and not kept, since its owner keeps this. Takes tensors,
                returns tensors without gradients, and adds to those of the parameters.
            inputs: what it is called with.
        """
        if not self.inputs:
            self._record(run, inputs)
        if [each.shape for each in inputs] != [each.shape for each in self.inputs]:
            return run(*inputs)
        for held, given in zip(self.inputs, inputs, strict=True):
            held.copy_(given)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.outputs

    def _record(self, run: Run, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = tuple(each.clone() for each in inputs)
        for _ in range(_WARM_UPS):
            self._warm_up(run)
        # Gradients are None, so the recorded backward writes them, and never adds to older ones.
        self.outputs = self.graph.record(lambda: run(*self.inputs))
        self.gradients = [parameter.grad for parameter in self.parameters]

    def _warm_up(self, run: Run) -> None:
        """Runs it on a side stream, as recording will, and forgets the result."""
        if not self.inputs[0].is_cuda:
            run(*self.inputs)
        else:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                run(*self.inputs)
            torch.cuda.current_stream().wait_stream(side)
        for parameter in self.parameters:
            parameter.grad = None


def check_graphs(config: TrainConfig, device: torch.device, processes: int) -> None:
    """Checks that a run which asks for graphs can have them.

    Raises:
        UserError: it is not on a GPU, or several processes train together.
    """
    if config.cuda_graphs and (device.type != "cuda" or processes > 1):
        raise UserError(
            f"train.cuda_graphs: wanted one process on a GPU, got {processes} on {device.type}; "
            "set train.cuda_graphs=false"
        )
