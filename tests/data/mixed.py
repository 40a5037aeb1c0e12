"""A folder as people have them: photographs of all kinds among files that are none."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

# What `hvae data inspect` has to say of the files that cannot be read, by name.
BAD = {
    "a/truncated.jpg": "damaged",
    "a/zero-bytes.png": "empty",
    "a/text.png": "no image",
    "b/bomb.png": "too large",
    "b/gone.png": "broken link",
    "b/itself.png": "link loop",
}
CONVERTED = {"a/cmyk.jpg": "CMYK", "a/deep.png": "16-bit", "b/rotated.jpg": "rotated"}
DEAD_LINKS = {"b/up": "link loop", "a/again": "repeated folder", "a/nothing": "broken link"}


def write_mixed(root: Path, count: int, side: int = 24) -> Path:
    """Writes `count` image files, those of BAD and CONVERTED among them, into two classes."""
    rng = np.random.default_rng(0)
    for folder in ("a", "b"):
        (root / folder).mkdir(parents=True)
    for number in range(count - len(BAD) - len(CONVERTED)):
        suffix = (".png", ".jpg", ".webp", ".bmp")[number % 4]
        height, width = rng.integers(side, 2 * side, 2).tolist()
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "ab"[number % 2] / f"{number:05}{suffix}")
    write_converted(root, side)
    write_bad(root)
    (root / "b" / "up").symlink_to(root)
    (root / "a" / "again").symlink_to(root / "b")
    (root / "a" / "nothing").symlink_to(root / "no-such-file")
    for name in ("a/notes.txt", "b/list.txt", "b/Thumbs.db", "README"):
        (root / name).write_text("not an image, and not named like one\n")
    return root


def write_converted(root: Path, side: int) -> None:
    rng = np.random.default_rng(1)
    Image.new("CMYK", (side, side), (0, 255, 255, 0)).save(root / "a/cmyk.jpg")
    deep = rng.integers(0, 2**16, (side, side), dtype=np.uint16)
    Image.fromarray(deep).save(root / "a/deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (side, 2 * side), "teal").save(root / "b/rotated.jpg", exif=exif)


def write_bad(root: Path) -> None:
    whole = io.BytesIO()
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, "JPEG")
    (root / "a/truncated.jpg").write_bytes(whole.getvalue()[:2000])
    (root / "a/zero-bytes.png").write_bytes(b"")
    (root / "a/text.png").write_text("no pixels here\n")
    (root / "b/bomb.png").write_bytes(png(60_000, 60_000, b""))
    (root / "b/gone.png").symlink_to(root / "b/was-here-once.png")
    (root / "b/itself.png").symlink_to(root / "b/itself.png")


def png(width: int, height: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG file of 8-bit RGB whose header may promise anything."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
