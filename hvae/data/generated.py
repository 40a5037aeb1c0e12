"""Generated images of exact, known content, for tests and smoke runs: no file, any size."""

import hashlib
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvae.data.identity import Identity, pixel_identity
from hvae.data.resize import rounded
from hvae.data.split import Split

COUNT = {"train": 3000, "test": 300}
CLASSES = ("disc", "square", "ring")


class ShapesSource:
    """An `ImageSource` of a disc, a square or a ring, coloured at random, on another colour.

    Image i is a pure function of (split, i, shape): position, radius and colours come from a
    sha256, so no generator's version can change them. Label and class are i modulo 3.
    """

    name = "shapes"
    classes: tuple[str, ...] | None = CLASSES
    conditions: Tensor | None = None

    def __init__(self, split: Split, shape: tuple[int, int, int], count: int | None = None) -> None:
        self.split: str = split
        self.shape = shape
        self._count = COUNT[split] if count is None else count
        self.labels: Tensor | None = torch.arange(self._count) % len(CLASSES)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self._draw(range(self._count)[index]))

    def identity(self) -> Identity:
        """The count and the hash of all pixels."""
        return pixel_identity((self._draw(i)[None] for i in range(self._count)), self.shape)

    def _draw(self, index: int) -> NDArray[np.uint8]:
        channels, height, width = self.shape
        chance = np.frombuffer(hashlib.sha256(f"{self.split} {index}".encode()).digest(), np.uint8)
        # The centre lies in the middle half; the radius is 1/8 to 3/8 of the smaller side.
        top, left = (0.25 + chance[:2] / 512) * (height, width)
        radius = (0.125 + chance[2] / 1024) * min(height, width)
        cover = _coverage(index % len(CLASSES), height, width, (top, left), radius)
        ink, paper = chance[3:6].astype(float), chance[6:9].astype(float)
        colour = paper[:channels, None, None] + (ink - paper)[:channels, None, None] * cover
        return rounded(colour)


def _coverage(
    kind: int, height: int, width: int, centre: tuple[float, float], radius: float
) -> NDArray[np.float64]:
    """How much of each pixel the shape covers, 0..1, by signed distance to its edge: (H, W)."""
    dy = np.abs(np.arange(height) + 0.5 - centre[0])[:, None]
    dx = np.abs(np.arange(width) + 0.5 - centre[1])[None]
    if CLASSES[kind] == "square":
        distance = np.maximum(dy, dx) - radius / math.sqrt(2)
    elif CLASSES[kind] == "ring":
        distance = np.abs(np.sqrt(dy**2 + dx**2) - radius * 0.75) - radius * 0.25
    else:
        distance = np.sqrt(dy**2 + dx**2) - radius
    return np.asarray(0.5 - distance).clip(0, 1)
