"""Sheets of images as PNG files."""

import math
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hvae.errors import UserError

GAP = 2  # pixels between images
GAP_GREY = 128  # visible beside black and white images alike


def save_grid(images: Tensor, path: str | Path, columns: int | None = None) -> None:
    """Writes images as one PNG sheet, row by row.

    The file appears complete or not at all: it is written beside its place and renamed. Missing
    folders are created.

    Args:
        images: uint8 (N, 1 | 3, H, W), N at least 1, on any device.
        path: the file, ending in .png.
        columns: images per row; None for a sheet as square as it gets.

    Raises:
        UserError: if the name does not end in .png.
        TypeError, ValueError: if `images` or `columns` is not as described.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise UserError(f"sheets are written as PNG; name the file *.png instead of {path.name}")
    _check(images, columns)
    sheet = _sheet(images, columns or math.ceil(math.sqrt(len(images))))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        sheet.save(partial, format="PNG")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _check(images: Tensor, columns: int | None) -> None:
    if images.dtype != torch.uint8:
        raise TypeError(f"wanted uint8 images, got {images.dtype}")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            f"wanted images (N, 1 or 3, H, W), none of them 0, got {tuple(images.shape)}"
        )
    if columns is not None and columns < 1:
        raise ValueError(f"wanted at least 1 column, got {columns}")


def _sheet(images: Tensor, columns: int) -> Image.Image:
    count, channels, height, width = images.shape
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    cells = np.full((rows * columns, height + GAP, width + GAP, channels), GAP_GREY, dtype=np.uint8)
    cells[:count, :height, :width] = images.permute(0, 2, 3, 1).cpu().numpy()
    sheet = cells.reshape(rows, columns, height + GAP, width + GAP, channels).swapaxes(1, 2)
    sheet = sheet.reshape(rows * (height + GAP), columns * (width + GAP), channels)[:-GAP, :-GAP]
    return Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
