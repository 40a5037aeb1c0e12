"""Verbs that several processes run together, started by torchrun."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from hvae.cli.output import fail
from hvae.errors import HvaeError

if TYPE_CHECKING:
    from hvae.training.distributed import World


@contextmanager
def speaking_as_one(world: "World") -> Iterator[None]:
    """Ends all processes of a run alike; the first one says why, and the others let it finish."""
    if not world.first:
        warnings.simplefilter("ignore")
    try:
        yield
    except HvaeError as error:
        if world.size == 1:
            raise
        code = error.exit_code
        end = fail(str(error), code) if world.first else typer.Exit(code)
        world.leave_together()
        raise end from None
    except typer.Exit:
        world.leave_together()
        raise
    else:
        world.leave_together()
