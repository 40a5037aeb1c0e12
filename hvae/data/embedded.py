"""The sets that ship inside the package: lossless contact sheets of real images."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvae.data.memory import ArraySource
from hvae.data.split import Split

ROOT = Path(__file__).with_name("embedded")

FASHION_CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

# Code points that name the same drawing: man and woman as person, and three near-identical pairs.
EMOJI_ALIAS = {
    "1f468": "1f9d1",
    "1f469": "1f9d1",
    "1f63a": "1f431",
    "26c4": "2603",
    "1f5ef": "1f5e8",
}
# Presentation selector, joiner, female and male sign tell variants of one drawing apart.
EMOJI_VARIANT = {"fe0f", "200d", "2640", "2642"}


def fashion_mini(split: Split) -> ArraySource:
    """The first 10,000 training or 2,000 test images of Fashion-MNIST, (1, 28, 28)."""
    folder = ROOT / "fashion-mini"
    digits = (folder / f"{split}_labels.txt").read_bytes()
    labels = np.frombuffer(digits, dtype=np.uint8) - ord("0")
    # WebP has no grey mode: the sheet decodes to three equal channels.
    images = _cut(folder / f"{split}.webp", side=28)[: len(labels), :1]
    return ArraySource("fashion-mini", split, images, labels=labels, classes=FASHION_CLASSES)


def emoji_32(split: Split) -> ArraySource:
    """1,637 training or 220 test emoji on white, (3, 32, 32); drawings never straddle the split."""
    folder = ROOT / "emoji-32"
    names = (folder / "codepoints.txt").read_text(encoding="ascii").split()
    is_test = np.array([_emoji_in_test(name) for name in names])
    rows = np.flatnonzero(is_test == (split == "test"))
    return ArraySource("emoji-32", split, _cut(folder / "sheet.webp", side=32), rows=rows)


def _emoji_in_test(name: str) -> bool:
    """Whether sha256 of the drawing's name, free of variants, starts with a byte below 32."""
    points = [EMOJI_ALIAS.get(p, p) for p in name.split("-") if p not in EMOJI_VARIANT]
    return hashlib.sha256("-".join(points).encode("ascii")).digest()[0] < 32


def _cut(path: Path, side: int) -> NDArray[np.uint8]:
    """The square cells of a contact sheet, row by row: uint8 (N, 3, side, side)."""
    with Image.open(path) as image:
        sheet = np.asarray(image.convert("RGB"))
    rows, columns = sheet.shape[0] // side, sheet.shape[1] // side
    cells = sheet.reshape(rows, side, columns, side, 3).transpose(0, 2, 4, 1, 3)
    return cells.reshape(-1, 3, side, side)
