"""One step on a batch that goes through the model in parts."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from hvae.models import Elbo

Part = tuple[tuple[Tensor, ...], int]


def parts_of(batch: tuple[Tensor, ...], first: int, count: int) -> list[Part]:
    """Returns a batch in `count` parts, each with the place of its first example.

    Their sizes differ by one at most. Some are empty where there are fewer examples: processes that
    train together need equally many parts, since they wait for each other in every one.
    """
    columns = [tensor.tensor_split(count) for tensor in batch]
    ends = itertools.accumulate(len(part) for part in columns[0])
    return [
        (part, first + end - len(part[0]))
        for part, end in zip(zip(*columns, strict=True), ends, strict=True)
    ]


def backward_in_parts(
    run: Callable[[tuple[Tensor, ...], int], Elbo],
    objective: Callable[[Elbo], Tensor],
    parts: list[Part],
    *,
    separable: bool,
    held_back: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> tuple[Elbo, Tensor]:
    """Adds the gradient of the objective of a whole batch to the parameters, part by part.

    The objective is no sum over examples while bits are free: whether a group pays is decided by
    the mean of its KL over the batch. A first pass without gradients gives the ELBO of every
    example, the objective's derivatives there are the weights of the second pass, and by the chain
    rule its gradient is that of the whole batch. A separable objective needs no first pass.

    Args:
        run: the ELBO of a part, given the place of its first example.
        objective: of the batch, a scalar; of a part, where it is separable, its share of that.
        parts: of the batch, in order.
        separable: the objective is the mean of a function of each example.
        held_back: makes the context that all parts but the last run in.

    Returns:
        The ELBO of the batch and its objective, without gradients.
    """
    if separable:
        elbos = []
        for (part, place), context in zip(parts, _contexts(len(parts), held_back), strict=True):
            with context:
                elbo = run(part, place)
                objective(elbo).backward()
            elbos.append(_detached(elbo))
        whole = _joined(elbos)
        return whole, objective(whole)
    with torch.no_grad():
        whole = _joined([run(part, place) for part, place in parts])
    nll, kl = whole.nll.requires_grad_(), whole.kl.requires_grad_()
    value = objective(whole)
    sizes = [len(part[0]) for part, _ in parts]
    gradients = torch.autograd.grad(value, (nll, kl), materialize_grads=True)
    shares = zip(*(g.split(sizes) for g in gradients), strict=True)
    for (part, place), weights, context in zip(
        parts, shares, _contexts(len(parts), held_back), strict=True
    ):
        with context:
            elbo = run(part, place)
            torch.autograd.backward((elbo.nll, elbo.kl), weights)
    return _detached(whole), value.detach()


def _contexts(
    count: int, held_back: Callable[[], AbstractContextManager[None]]
) -> Iterator[AbstractContextManager[None]]:
    """One for each part: the last one's gradients are not held back."""
    yield from (held_back() for _ in range(count - 1))
    yield nullcontext()


def _joined(elbos: list[Elbo]) -> Elbo:
    columns: Any = zip(*elbos, strict=True)
    return Elbo(*(torch.cat(column) for column in columns))


def _detached(elbo: Elbo) -> Elbo:
    return Elbo(*(tensor.detach() for tensor in elbo))
