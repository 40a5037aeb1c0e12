"""Where numbers stop being finite: the first module, by hooks that live for one re-run."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from hvae.models import Elbo
from hvae.training.distributed import World
from hvae.training.sharding import part


@dataclass(frozen=True)
class Place:
    """Where a batch goes wrong: the name of a module, and the find in words."""

    module: str
    text: str


class Finder:
    """What hooks found; the first module in the order of the forward, then of the backward."""

    def __init__(self) -> None:
        self.place: Place | None = None

    def output(self, name: str, inputs: Any, output: Any) -> None:
        """Notes an output that is not finite, and looks at the gradient of one that is."""
        for tensor in _tensors(output):
            if not _finite(tensor):
                known = all(map(_finite, _tensors(inputs)))
                origin = "" if known else ", whose input already was not"
                self.note(name, f"the output of {name}{origin}")
            elif tensor.requires_grad:
                tensor.register_hook(lambda gradient: self.gradient(name, gradient))

    def gradient(self, name: str, gradient: Tensor) -> None:
        """Notes a gradient that is not finite."""
        if not _finite(gradient):
            self.note(name, f"the gradient at the output of {name}")

    def note(self, name: str, text: str) -> None:
        """Keeps the first find."""
        if self.place is None:
            self.place = Place(name, f"first not finite: {text}")


@contextmanager
def finding(model: nn.Module, finder: Finder) -> Iterator[None]:
    """Shows the finder what every module of a model returns inside this context."""

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _, inputs, output: finder.output(name, inputs, output)

    named = [(name, module) for name, module in model.named_modules() if name]
    handles = [module.register_forward_hook(hook(name)) for name, module in named]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def locate(
    model: nn.Module, losses: Callable[[], tuple[Elbo, Tensor]], world: World | None = None
) -> Place:
    """Returns where a batch first gives a number that is not finite, or else its largest term.

    Looks at parameters, then at the outputs of modules in the order of the forward, at the terms of
    the ELBO, and at gradients in the order of the backward. A module that is not called as one, but
    through its weights, cannot be named; the next one is, with the remark that its input already
    was not finite.

    Args:
        model: whose modules are looked at; its gradients are cleared afterwards.
        losses: runs the batch through it, eagerly, and returns ELBO and objective.
        world: the processes that each run their part of the batch; what one finds all return.
    """
    world = world or World()
    finder = Finder()
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            finder.note(_owner(name), f"the parameter {name}")
    model.zero_grad()
    with finding(model, finder):
        elbo, loss = losses()
        _look_at_terms(finder, elbo)
        if not world.any(finder.place is not None):
            if not _finite(loss):  # of all processes alike, so that all do the same here
                finder.note("objective", "the objective")
            else:
                loss.backward()
                _look_at_gradients(finder, model)
    model.zero_grad()
    finds = world.gather(None if finder.place is None else asdict(finder.place))
    found = next((find for find in finds if find is not None), None)
    return _largest_term(elbo) if found is None else Place(**found)


def _look_at_terms(finder: Finder, elbo: Elbo) -> None:
    for group, kl in enumerate(elbo.kl.unbind(1)):
        if not _finite(kl):
            finder.note(f"decoder.blocks.{group}", f"the KL of group {group + 1} {_rows(kl)}")
    if not _finite(elbo.nll):
        finder.note("likelihood", f"-ln p(x | z) of the likelihood {_rows(elbo.nll)}")


def _look_at_gradients(finder: Finder, model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not _finite(parameter.grad):
            finder.note(_owner(name), f"the gradient of the parameter {name}")


def _largest_term(elbo: Elbo) -> Place:
    """Of this process's images: the alarm is written by the first one, which always has some."""
    nll, kl = elbo.nll.mean().item(), elbo.kl.mean(0).tolist()
    group, most = max(enumerate(kl), key=lambda pair: pair[1], default=(0, -math.inf))
    all_finite = "all numbers are finite in a re-run, the largest term is"
    if nll >= most:
        return Place("likelihood", f"{all_finite} -ln p(x | z) of the likelihood, {nll:.4g} nats")
    return Place(
        f"decoder.blocks.{group}", f"{all_finite} the KL of group {group + 1}, {most:.4g} nats"
    )


def _rows(values: Tensor) -> str:
    bad = (~values.isfinite()).nonzero().flatten().tolist()
    shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
    return f"(of images {shown} in a batch of {len(values)})"


def _owner(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [v for v in value if isinstance(v, Tensor)] if isinstance(value, (tuple, list)) else []


def _finite(tensor: Tensor) -> bool:
    return bool(part(tensor).isfinite().all())
