"""Files made to exhaust memory or to run code: refused in one line, with their name, at once."""

import gzip
import io
import os
import resource
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvae.data import DataConfig, open_source
from hvae.data.decode import ImageError, decode, examine, read_header
from hvae.data.idx import read_idx
from hvae.errors import UserError
from tests.data.mixed import chunk, png

MIB = 2**20


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """What takes half a gigabyte more than there is now fails."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 512 * MIB, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def jpeg(height: int, width: int) -> bytes:
    """A JPEG of 8 x 8 pixels whose header promises others."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(buffer, "JPEG")
    whole = buffer.getvalue()
    at = whole.index(b"\xff\xc0") + 5
    return whole[:at] + struct.pack(">HH", height, width) + whole[at + 4 :]


def webp(size: int) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "WEBP")
    return buffer.getvalue()[:size]


def gif(height: int, width: int, frame: tuple[int, int]) -> bytes:
    """A GIF of one frame, which may be larger than the screen it says it has."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    image = b"," + struct.pack("<HHHHB", 0, 0, frame[1], frame[0], 0) + b"\x02\x02\x44\x01\x00;"
    return screen + image


ROWS = b"\0" + bytes(3 * 4)
IMAGES = {
    "huge.png": (png(2**31 - 1, 2**31 - 1, ROWS), "too large"),
    "wide.png": (png(2**31 - 1, 1, ROWS), "too large"),
    "profile.png": (
        png(4, 1, ROWS, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(300 * MIB)))),
        None,
    ),
    "text.png": (
        png(4, 1, ROWS, chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(300 * MIB)))),
        "damaged",
    ),
    "ztxt.png": (
        png(4, 1, ROWS, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(300 * MIB)))),
        "damaged",
    ),
    "chunk.png": (png(4, 1, ROWS)[:33] + struct.pack(">I", 2**31 - 1) + b"iCCPx", "damaged"),
    "huge.jpg": (jpeg(65500, 65500), "too large"),
    "flat.jpg": (jpeg(0, 8), "no image"),
    "cut.webp": (webp(200), None),
    "header.webp": (webp(30), None),
    "huge.gif": (gif(65535, 65535, (8, 8)), "too large"),
    "frame.gif": (gif(8, 8, (65535, 65535)), "too large"),
    "cut.gif": (gif(8, 8, (8, 8))[:20], None),
    "huge.bmp": (
        b"BM" + struct.pack("<IHHIIiiHHI", 99, 0, 0, 54, 40, 10**6, 10**6, 1, 24, 0) + bytes(20),
        "too large",
    ),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_are_refused_by_name(tmp_path: Path, name: str) -> None:
    content, kind = IMAGES[name]
    path = tmp_path / name
    path.write_bytes(content)
    for read in (decode, examine):
        with pytest.raises(ImageError, match=f"cannot read the image .*{name}: .") as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert kind in (None, caught.value.kind)


@pytest.mark.parametrize("read", [decode, examine, read_header])
def test_what_is_no_file_is_never_opened(tmp_path: Path, read) -> None:
    """Opening a named pipe waits for somebody to write to it."""
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"pipe\.png: it is no regular file"):
        read(tmp_path / "pipe.png")


def npy(header: str, content: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    text = header.encode("latin1") + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + content


def promising(shape: str, dtype: str = "|u1") -> str:
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"


NPYS = {
    "more than there is": npy(promising("(1000000, 64, 64, 3)"), bytes(1000)),
    "a terabyte": npy(promising("(10, 100000, 1000000)"), bytes(1000)),
    "overflowing": npy(promising("(4294967296, 4294967296, 4294967296)"), bytes(1000)),
    "overflowing to nothing": npy(promising("(9223372036854775808, 2, 4)"), bytes(1000)),
    "negative": npy(promising("(-1, 8, 8)"), bytes(64)),
    "an object": npy(promising("(4, 8, 8)", "|O"), bytes(2048)),
    "no dictionary": npy("__import__('os').abort()"),
    "nested": npy("(" * 9000),
    "nested in version 2": npy("[" * 60_000, version=(2, 0)),
    "unclosed": npy("{'descr': '''"),
    "long": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"x",
    "unknown version": npy(promising("(1, 8, 8)"), bytes(64), version=(9, 0)),
}


@pytest.mark.parametrize("kind", NPYS)
def test_npy_headers_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "set.npy"
    path.write_bytes(NPYS[kind])
    refused(path)


@pytest.mark.parametrize("kind", NPYS)
def test_npy_headers_inside_an_npz_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", NPYS[kind])
    refused(path)


def refused(path: Path) -> None:
    for split in ("train", "test"):
        with pytest.raises(UserError) as caught:
            open_source(DataConfig(source=str(path)), split)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["images", "labels"])
def test_zip_bombs_are_refused_by_name(tmp_path: Path, key: str) -> None:
    """320 MiB of zeros in two; no array of them is made."""
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        if key != "images":
            archive.writestr("images.npy", npy(promising("(40, 2, 2)"), bytes(160)))
        with archive.open(f"{key}.npy", "w") as file:
            file.write(npy(promising("(327680, 32, 32)")))
            for _ in range(20):
                file.write(bytes(16 * MIB))
    assert path.stat().st_size < 2 * MIB
    with pytest.raises(UserError, match=rf"bomb\.npz \({key}\) would unpack .*plain \.npy"):
        open_source(DataConfig(source=str(path)), "train")


def test_flat_images_are_no_bomb(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "black.npz", images=np.zeros((1000, 64, 64), np.uint8))
    assert len(open_source(DataConfig(source=str(tmp_path / "black.npz")), "train")) > 900


def test_pickled_objects_in_an_npz_are_not_loaded(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    images = np.zeros((40, 2, 2), np.uint8)
    for key in ("images", "labels", "conditions", "classes"):
        np.savez(tmp_path / "set.npz", **({"images": images} | {key: np.array([Payload()])}))
        refused(tmp_path / "set.npz")
    assert not (tmp_path / "executed").exists()


def test_compressed_idx_files_are_read_no_further_than_they_promise(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    with gzip.open(path, "wb") as file:
        file.write(struct.pack(">4B3i", 0, 0, 8, 3, 2, 4, 4))
        file.write(bytes(16 * MIB))
    with pytest.raises(UserError, match=r"ubyte\.gz promises 2 x 4 x 4 bytes and holds 33 or more"):
        read_idx(path, rank=3)
    with gzip.open(path, "wb") as file:
        file.write(struct.pack(">4B3i", 0, 0, 8, 3, 2**20, 2**10, 2**10))
    with pytest.raises(UserError, match=r"ubyte\.gz would unpack"):
        read_idx(path, rank=3)
