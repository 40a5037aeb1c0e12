"""What every test runs under: one thread, NaN-poisoned memory, fixed seeds, GPUs optional."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from hvae.testing import poisoned_memory

# The tensors are tiny, and threads that wait for a busy core make them ten times slower. Commands
# that tests start inherit it.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# Examples are the same in every run, and a busy machine may take its time over each.
settings.register_profile("hvae", derandomize=True, deadline=None)
settings.load_profile("hvae")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="torch finds no CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - whatever a library draws from the global generator
    torch.manual_seed(0)
    with poisoned_memory():
        yield


@pytest.fixture
def held_elsewhere() -> Callable[[Path], AbstractContextManager[None]]:
    """Holds a lock file in another process until the context ends."""
    code = (
        "import sys; from pathlib import Path; from hvae.files import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )

    @contextmanager
    def hold(file: Path) -> Iterator[None]:
        command = [sys.executable, "-c", code, str(file)]
        with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            yield
            other.communicate("")

    return hold
