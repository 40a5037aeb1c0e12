"""What setup.py compiles with, for the tests that look at the machine code it gets."""

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import setuptools

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def build() -> Mapping[str, Any]:
    """The names that setup.py defines, run without setting anything up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **_: None)
        patch.syspath_prepend(ROOT)
        return runpy.run_path(str(ROOT / "setup.py"))
