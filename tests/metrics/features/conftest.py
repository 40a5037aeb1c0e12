"""No test here sees the caches of whoever runs it."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that downloads and copies go to; it does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HVAE_WEIGHTS", raising=False)
    monkeypatch.delenv("TORCH_HOME", raising=False)
    return tmp_path / "cache" / "hvae" / "weights"
