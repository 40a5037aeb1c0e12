from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteImages = Callable[..., Path]


@pytest.fixture
def write_images(tmp_path: Path) -> WriteImages:
    """Writes PNG files of one colour per name below a folder, and returns the folder."""

    def write(*names: str, size: tuple[int, int] = (4, 6), folder: str = "set") -> Path:
        root = tmp_path / folder
        for number, name in enumerate(names):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((*size, 3), number, dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        return root

    return write
