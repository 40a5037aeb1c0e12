"""From an image file to planes of grey or RGB, by one stated rule per kind of file.

* Transparency (palette, LA, RGBA) is laid on white in float, before anything is resized: Lanczos
  overshoots of alpha and colour would otherwise be clipped separately.
* EXIF rotation is applied. Of an animation the first frame is read.
* 16-bit grey becomes round(v / 257). Of 16-bit colour Pillow offers the high byte only, which is
  exact for files that were made from 8 bits.
* CMYK and other colour spaces are converted by Pillow, without colour management.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from hvae.data.resize import Planes, rounded
from hvae.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
# A closed list, because Pillow goes by content: a PostScript file named .png would run Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")

EXIF_ORIENTATION = 0x0112
WHITE = np.float32(255.0)


@dataclass(frozen=True)
class Header:
    """What an image will decode to: size after EXIF rotation, and 1 (grey) or 3 channels."""

    height: int
    width: int
    channels: int


def read_header(path: Path) -> Header:
    """The size and channel count of an image file, without decoding its pixels.

    Raises:
        UserError: naming the file, if it is no readable image.
    """
    with _opened(path) as image:
        height, width = image.height, image.width
        if image.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8):
            height, width = width, height
        grey = _is_deep(image) or image.mode in ("1", "L", "LA", "La")
        return Header(height, width, 1 if grey else 3)


def decode(path: Path) -> Planes:
    """The pixels of an image file.

    Returns:
        (C, H, W), C = 1 for grey and 3 for RGB, values 0..255; fresh uint8, or float32 where
        transparency was laid on white.

    Raises:
        UserError: naming the file, if it is missing, damaged, too large (Pillow's limit against
            decompression bombs, its warning included) or no image.
    """
    with _opened(path) as image:
        return _planes(ImageOps.exif_transpose(image))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            _refuse_bomb(image)
            yield image
    # Decoders meet hostile bytes with OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        raise UserError(f"cannot read the image {path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _refuse_bomb(image: Image.Image) -> None:
    """Raises where Pillow only warns; turning warnings into errors would not be thread-safe."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(
            f"{image.width} x {image.height} pixels exceed Pillow's limit of {limit}; scale it down"
        )


def _is_deep(image: Image.Image) -> bool:
    return image.mode == "I" or image.mode.startswith("I;16")


def _planes(image: Image.Image) -> Planes:
    if _is_deep(image):
        return rounded(np.asarray(image)[None] / 257)
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        return _on_white(image.convert("LA" if grey else "RGBA"))
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    # A copy, because Pillow's own memory is read-only, which torch warns about.
    return np.array(pixels[None] if grey else pixels.transpose(2, 0, 1), order="C")


def _on_white(image: Image.Image) -> NDArray[np.float32]:
    """Composites interleaved (H, W, colours + 1): colour * alpha + 255 * (1 - alpha)."""
    pixels = np.asarray(image).astype(np.float32).transpose(2, 0, 1)
    alpha = pixels[-1:] / WHITE
    return np.asarray(pixels[:-1] * alpha + WHITE * (1 - alpha))
