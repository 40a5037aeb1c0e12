"""From an image file to planes of grey or RGB, by one stated rule per kind of file.

* Transparency (palette, LA, RGBA) is laid on white in float, before anything is resized: Lanczos
  overshoots of alpha and colour would otherwise be clipped separately.
* EXIF rotation is applied. Of an animation the first frame is read.
* 16-bit grey becomes round(v / 257). Of 16-bit colour Pillow offers the high byte only, which is
  exact for files that were made from 8 bits.
* CMYK and other colour spaces are converted by Pillow, without colour management.
"""

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

SUFFIXES_OF = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "MPO": (".jpg", ".jpeg")}

EXIF_ORIENTATION = 0x0112
WHITE = np.float32(255.0)


@dataclass(frozen=True)
class Header:
    """What an image will decode to: size after EXIF rotation, and 1 (grey) or 3 channels."""

    height: int
    width: int
    channels: int


class ImageError(UserError):
    """An image file that cannot be read.

    Attributes:
        kind: "missing", "broken link", "link loop", "no permission", "no file", "empty",
            "no image", "too large" or "damaged".
        reason: one line, without the name.
    """

    def __init__(self, message: str, kind: str = "damaged", reason: str = "") -> None:
        super().__init__(message)
        self.kind, self.reason = kind, reason


def read_header(path: Path) -> Header:
    """The size and channel count of an image file, without decoding its pixels.

    Raises:
        ImageError: naming the file, if it is no readable image.
    """
    with _opened(path) as image:
        return _header(image)


def glance(path: Path) -> tuple[Header, tuple[str, ...]]:
    """The header of an image file, and what conversion it asks for, without decoding its pixels.

    The second is empty for plain grey and RGB, and else names "CMYK", "16-bit", "palette",
    "transparent", "rotated" or "animated", and a content that is not what the suffix says.

    Raises:
        ImageError: naming the file, if it is no readable image.
    """
    with _opened(path) as image:
        return _header(image), tuple(_kinds(image, path.suffix.lower()))


def examine(path: Path) -> tuple[Header, tuple[str, ...]]:
    """What `glance` tells, of a file that can be read whole.

    Raises:
        ImageError: naming the file, as `decode` does.
    """
    with _opened(path) as image:
        header, kinds = _header(image), tuple(_kinds(image, path.suffix.lower()))
        _planes(ImageOps.exif_transpose(image))
    return header, kinds


def decode(path: Path) -> Planes:
    """The pixels of an image file.

    Returns:
        (C, H, W), C = 1 for grey and 3 for RGB, values 0..255; fresh uint8, or float32 where
        transparency was laid on white.

    Raises:
        ImageError: naming the file, if it is missing, damaged, too large (Pillow's limit against
            decompression bombs, its warning included) or no image.
    """
    with _opened(path) as image:
        return _planes(ImageOps.exif_transpose(image))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for ever
            raise _NoFileError("it is no regular file")
        # Pillow leaves a file that it opened itself open where the first read fails.
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            _refuse_bomb(image)
            yield image
    # Decoders meet hostile bytes with OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        kind = _error_kind(path, error)
        reason = _reason(kind, error)
        raise ImageError(f"cannot read the image {path}: {reason}", kind, reason) from error


class _NoFileError(OSError):
    """A folder, a pipe or a device."""


class _TooLargeError(ValueError):
    """A decompression bomb by this module's rule."""


def _error_kind(path: Path, error: Exception) -> str:
    if isinstance(error, _NoFileError):
        return "no file"
    if isinstance(error, FileNotFoundError):
        return "broken link" if path.is_symlink() else "missing"
    if isinstance(error, PermissionError):
        return "no permission"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "link loop"
    if isinstance(error, _TooLargeError | Image.DecompressionBombError):
        return "too large"
    if isinstance(error, UnidentifiedImageError):
        return "no image" if path.stat().st_size else "empty"
    return "damaged"


def _reason(kind: str, error: Exception) -> str:
    """One line that says why, without the file's name."""
    if kind == "empty":
        return "it is empty"
    if kind == "no image":
        return f"it is none of {', '.join(FORMATS)}"
    if kind == "broken link":
        return "it is a link to nothing"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _refuse_bomb(image: Image.Image) -> None:
    """Raises where Pillow only warns; turning warnings into errors would not be thread-safe."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise _TooLargeError(
            f"{image.width} x {image.height} pixels exceed Pillow's limit of {limit}; scale it down"
        )


def _header(image: Image.Image) -> Header:
    height, width = image.height, image.width
    if image.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8):
        height, width = width, height
    grey = _is_deep(image) or image.mode in ("1", "L", "LA", "La")
    return Header(height, width, 1 if grey else 3)


def _kinds(image: Image.Image, suffix: str) -> Iterator[str]:
    """What sets an opened image apart from plain 8-bit grey or RGB."""
    if image.mode == "CMYK":
        yield "CMYK"
    # Pillow gives 16-bit colour the mode of 8 bits; only the raw mode of its tiles tells.
    if _is_deep(image) or any(";16" in str(tile) for tile in getattr(image, "tile", ())):
        yield "16-bit"
    if image.mode in ("P", "PA"):
        yield "palette"
    if image.has_transparency_data:
        yield "transparent"
    if image.getexif().get(EXIF_ORIENTATION, 1) in range(2, 9):
        yield "rotated"
    if image.format not in (None, "MPO"):  # its further pictures are no animation
        with suppress(Exception):  # of frames that are not read
            if getattr(image, "is_animated", False):
                yield "animated"
    if suffix not in SUFFIXES_OF.get(image.format or "", (f".{image.format}".lower(),)):
        yield f"{image.format} named {suffix}"


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
