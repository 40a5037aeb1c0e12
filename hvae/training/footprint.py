"""What a training step takes, found without taking it: a run over tensors that hold no data."""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from hvae.models import HVAE, ModelConfig
from hvae.models.recompute import Recompute
from hvae.ops.philox import make_rng

# Beside the weights: two moments of the optimiser and the average, of the size of the weights each.
_STATES = 4


@dataclass(frozen=True)
class Footprint:
    """A forward and backward pass over one batch, in bytes and floating-point operations.

    name        meaning
    parameters  numbers in the model
    batch       images of the pass
    held        bytes that the forward leaves for the backward
    peak        most bytes that both passes hold at once, gradients of the weights included
    states      bytes of weights, their average and the optimiser's moments
    flops       of forward and backward, what is computed again included
    """

    parameters: int
    batch: int
    held: int
    peak: int
    states: int
    flops: int

    @property
    def total(self) -> int:
        """Most bytes of tensors in a training step.

        The optimiser's update works on lists of temporaries, when the activations are gone.
        """
        weights = self.states // _STATES
        return self.states + max(self.peak, 3 * weights)


def footprint(
    config: ModelConfig, batch: int, plan: Recompute | None = None, *, bf16: bool = False
) -> Footprint:
    """Returns what a training step of a model takes on `batch` images.

    The pass is made on fake tensors, which have shapes and no memory, so a model that would never
    fit is measured as well. Workspaces inside an operation are not seen.

    Args:
        config: the model, its size and channels set.
        batch: images that go through the model at once.
        plan: what is computed again. None: nothing.
        bf16: convolutions in bfloat16.
    """
    with torch.device("meta"):
        model = HVAE(config)
    with FakeTensorMode():
        _to_cpu(model)
        model.recompute(plan or Recompute())
        x = torch.zeros(batch, *model.shape, dtype=torch.uint8)
        rng = make_rng(0)
        parameters = sum(p.numel() for p in model.parameters())
        weights = sum(p.nbytes for p in model.parameters())
        with Meter() as meter:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = -model(x, rng=rng).elbo.mean()
            held = meter.bytes
            loss.backward()
    return Footprint(parameters, batch, held, meter.peak, _STATES * weights, meter.flops)


class Meter(TorchDispatchMode):
    """Counts the bytes of storages that operations make and that still live, and the arithmetic.

    Torch's FlopCounterMode follows modules, too, and keeps tensors alive by it.

    Attributes:
        bytes: now.
        peak: the most so far.
        flops: of convolutions and products of matrices.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.peak = self.flops = 0
        self._living: set[int] = set()
        self._forms: dict[Any, list[Any]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = {id(tensor.untyped_storage()) for tensor in _tensors(args)}
        ours = func.namespace == "hvae"
        result = self._own(func, args) if ours else func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if id(storage) not in given | self._living:
                self._count(storage)
        if count := flop_registry.get(func.overloadpacket):
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        return result

    def _own(self, func: Any, args: tuple[Any, ...]) -> Any:
        """What an op of this package returns.

        Its reference is slow over tensors without data, and groups of a level ask for like shapes.
        """
        names = [argument.name for argument in func._schema.arguments]
        told = [value for name, value in zip(names, args, strict=True) if name != "stream"]
        key = (func, *(_form(a) if isinstance(a, Tensor) else a for a in told))
        if key not in self._forms:
            results = func(*args)
            self._forms[key] = [_form(t) for t in _tensors(results)]
            return results
        made = [torch.empty_strided(*form[:2], dtype=form[2]) for form in self._forms[key]]
        return made[0] if len(made) == 1 else tuple(made)

    def _count(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self._living.add(id(storage))
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._release, id(storage), size)

    def _release(self, key: int, size: int) -> None:
        self._living.discard(key)
        self.bytes -= size


def _to_cpu(model: nn.Module) -> None:
    """Turns parameters without a device into ones of the fake CPU; `Module.to` refuses them."""
    for module in model.modules():
        for name, old in module.named_parameters(recurse=False):
            new = torch.empty_strided(old.shape, old.stride(), dtype=old.dtype)
            module.register_parameter(name, nn.Parameter(new))


def _form(tensor: Tensor) -> tuple[torch.Size, tuple[int, ...], torch.dtype]:
    return tensor.shape, tensor.stride(), tensor.dtype


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
