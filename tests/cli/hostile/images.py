"""Words that name no images, folders that hold none, and image files that are none."""

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.cli.hostile.case import Case, Make, nothing, writing
from tests.data.mixed import png


def encoded(suffix: str, side: int = 64) -> bytes:
    """An image file of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, suffix)
    return buffer.getvalue()


def cut(suffix: str, size: int = 300) -> bytes:
    return encoded(suffix)[:size]


def changed(whole: bytes, at: int, value: bytes) -> bytes:
    return whole[:at] + value + whole[at + len(value) :]


def jpeg_of(height: int, width: int) -> bytes:
    """A JPEG whose header promises another size."""
    whole = encoded("JPEG", 8)
    return changed(whole, whole.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))


# Files among good ones, and what is said of them.
FILES: dict[str, tuple[bytes, str]] = {
    "zero.png": (b"", "it is empty"),
    "zero.jpg": (b"", "it is empty"),
    "text.png": (b"no pixels here\n", "it is none of PNG"),
    "script.jpg": (b"%!PS-Adobe-3.0\nshowpage\n", "it is none of PNG"),
    "pickle.webp": (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "it is none of PNG"),
    "archive.bmp": (b"PK\x05\x06" + bytes(18), "it is none of PNG"),
    "cut.png": (cut("PNG"), "cannot read the image"),
    "cut.jpg": (cut("JPEG", 900), "cannot read the image"),
    "cut.webp": (cut("WEBP"), "cannot read the image"),
    "cut.gif": (cut("GIF", 900), "cannot read the image"),
    "cut.bmp": (cut("BMP"), "cannot read the image"),
    "header.png": (cut("PNG", 33), "cannot read the image"),
    "flipped.png": (changed(encoded("PNG"), 100, b"\xff\0\xff\0"), "cannot read the image"),
    "bomb.png": (png(60_000, 60_000, b""), "exceeds limit"),
    "bomb.jpg": (jpeg_of(65_500, 65_500), "pixels"),
    "flat.jpg": (jpeg_of(0, 8), "flat.jpg"),
    "wide.png": (png(2**31 - 1, 1, b""), "pixels"),
}

Place = Callable[[Path], object]


def _pipe(file: Path) -> None:
    os.mkfifo(file)


def _link_to(target: str) -> Place:
    return lambda file: file.symlink_to(target)


# What is no file, though it is named like an image.
SPECIAL: dict[str, tuple[Place, str]] = {
    "pipe.png": (_pipe, "it is no regular file"),
    "itself.png": (_link_to("itself.png"), "Too many levels of symbolic links"),
    "gone.png": (_link_to("was-here-once.png"), "a link to nothing"),
    "device.png": (_link_to("/dev/zero"), "it is no regular file"),
    "memory.png": (_link_to("/proc/self/mem"), "Input/output error"),
}

# Names that a terminal would obey, or that are no text.
NAMES = {
    "a line": ("two\nlines.png", "two lines.png"),
    "a colour": ("\x1b[31mred.png", r"\x1b[31mred.png"),
    "a bell": ("\a.png", r"\x07.png"),
    "a return": ("a\rb.png", "a b.png"),
    "writing to the left": ("\u202egnp.png", r"\u202egnp.png"),
    "no text": (os.fsdecode(b"\xff\xfe.png"), r"\xff\xfe.png"),
}


def among_good(name: str, make: Place) -> Make:
    """Returns what makes a folder `a` of three good images and another file."""

    def build(folder: Path) -> None:
        (folder / "a").mkdir()
        for index in range(3):
            Image.new("RGB", (9, 9), (index, 90, 9)).save(folder / "a" / f"{index}.png")
        make(folder / "a" / name)

    return build


def containing(content: bytes) -> Place:
    return lambda file: file.write_bytes(content)


BAD: dict[str, tuple[Place, str]] = {
    name: (containing(content), told) for name, (content, told) in FILES.items()
} | SPECIAL


def _images(*names: str) -> Make:
    def make(folder: Path) -> None:
        for name in names:
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), "teal").save(file)

    return make


def _only(place: Place, name: str) -> Make:
    return lambda folder: place(folder / name)


# Words for DATA: what makes the input, the word, and what is said.
WORDS: dict[str, tuple[Make, str, str]] = {
    "nothing there": (nothing, "nowhere", "no set or file is named nowhere"),
    "an empty word": (nothing, "", "an empty word"),
    "a blank word": (nothing, " ", "no set or file is named"),
    "a near miss": (nothing, "fashion-mimi", "did you mean fashion-mini"),
    "a long word": (nothing, "a" * 5000, "too long"),
    "no such home": (nothing, "~no-such-user/photos", "~no-such-user"),
    "a word with an escape": (nothing, "\x1b[2Jnowhere", r"\x1b[2Jnowhere"),
    "a word that is no text": (nothing, os.fsdecode(b"\xffnowhere"), r"\xffnowhere"),
    "an unknown kind": (nothing, "fodler:photos", "did you mean folder:photos"),
    "a hub": (nothing, "hf:owner/name", "Hugging Face"),
    "a URL": (nothing, "https://example.org/photos.zip", "no set or file is named"),
    "a folder kind without a path": (nothing, "folder:nowhere", "nowhere"),
    "arrays that are not there": (nothing, "npz:nowhere.npz", "No such file"),
    "arrays that are a folder": (nothing, "npy:bright", "bright"),
    "idx without files": (nothing, "idx:bright", "bright has no train-images-idx3-ubyte"),
    "prepared without a manifest": (nothing, "prepared:bright", "prepared.json"),
    "Fashion-MNIST that is not there": (nothing, "fashion-mnist:bright", "bright has no"),
    "an empty folder": (lambda f: (f / "a").mkdir(), "a", "no image in a"),
    "one image": (_images("a/0.png"), "a", "at least 2 images, got 1"),
    "texts": (writing("a/notes.txt", "no"), "a", "no image in a"),
    "hidden images": (_images("a/.0.png", "a/.thumbnails/1.png"), "a", "no image in a"),
    "a folder that holds itself": (
        lambda f: ((f / "a").mkdir(), (f / "a" / "b").symlink_to(f / "a")),
        "a",
        "no image in a",
    ),
    "a link to itself": (lambda f: (f / "a").symlink_to("a"), "a", "a"),
    "an image": (_images("a.png"), "a.png", "neither a folder of images nor"),
    "a text": (writing("a.txt", "photos\n"), "a.txt", "neither a folder of images nor"),
    "a pipe": (_only(_pipe, "a"), "a", "neither a folder of images nor"),
    "a device": (nothing, "/dev/zero", "neither a folder of images nor"),
    "a test split alone": (_images("a/test/0.png", "a/test/1.png"), "a", "no train"),
}

CASES = [
    *(
        Case(f"image {name}", ("fid", "a", "--real", "bright"), told, among_good(name, make))
        for name, (make, told) in BAD.items()
    ),
    *(
        Case(
            f"image whose name has {name}",
            ("fid", "a", "--real", "bright"),
            told,
            among_good(file, containing(b"none")),
        )
        for name, (file, told) in NAMES.items()
    ),
    *(
        Case(f"DATA: {name}", ("fid", word, "--real", "bright"), told, make)
        for name, (make, word, told) in WORDS.items()
        if name != "a test split alone"
    ),
    Case(
        "DATA: a test split alone",
        ("fid", "a", "--real", "bright", "--a-split", "test"),
        "no train",
        WORDS["a test split alone"][0],
    ),
    *(
        Case(f"--real: {name}", ("fid", "bright", "--real", word), told, make)
        for name in ("nothing there", "an empty word", "no such home", "one image", "a pipe")
        for make, word, told in [WORDS[name]]
    ),
    Case(
        "bad images alone",
        ("fid", "a", "--real", "bright", "--skip-bad"),
        "none of the 2",
        lambda f: (writing("a/0.png", b"")(f), writing("a/1.png", b"none")(f)),
    ),
    Case(
        "one image among bad ones",
        ("fid", "a", "--real", "bright", "--skip-bad"),
        "at least 2 images, got 1",
        lambda f: (writing("a/0.png", b"")(f), _images("a/1.png")(f)),
    ),
    Case(
        "images of several sizes",
        ("fid", "a", "--real", "bright"),
        "does not resize",
        lambda f: (_images("a/0.png")(f), writing("a/1.png", encoded("PNG"))(f)),
    ),
    Case(
        "a folder that is listed for fid-stats",
        ("fid-stats", "a", "-o", "s.safetensors"),
        "cut.png",
        among_good("cut.png", containing(FILES["cut.png"][0])),
    ),
]
