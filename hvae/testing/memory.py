"""Fresh memory filled with NaN, so that an output element nobody wrote is seen."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill every tensor that torch allocates uninitialised with NaN (integers with their largest).

    Torch does so under deterministic algorithms; those that are not deterministic only warn here.
    Code that `torch.compile` generates allocates by other ways and stays unpoisoned.
    """
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic  # its attribute is a property that stubs miss
    fill = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
        settings.fill_uninitialized_memory = fill
