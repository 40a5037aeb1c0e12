"""Sets as arrays: .npy and .npz files, idx files, prepared folders."""

import gzip
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hvae.data import DataConfig
from hvae.data.prepare import prepare
from tests.cli.hostile.case import Case, Make, writing

MIB = 2**20


class Payload:
    """What makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("executed",)


def images(count: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)


def npz(name: str = "a.npz", **arrays: Any) -> Make:
    return lambda folder: np.savez(folder / name, **arrays)


def npy(array: Any) -> Make:
    return lambda folder: np.save(folder / "a.npy", array)


def promising(shape: str, dtype: str = "|u1", content: bytes = bytes(64)) -> bytes:
    """A .npy file whose header says what it wants."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def zipped(*entries: tuple[str, bytes], name: str = "a.npz") -> Make:
    def make(folder: Path) -> None:
        with warnings.catch_warnings(), zipfile.ZipFile(folder / name, "w") as archive:
            warnings.simplefilter("ignore")  # of two entries of one name
            for entry, content in entries:
                archive.writestr(zipfile.ZipInfo(entry), content)

    return make


def bomb(header: bytes, entry: str, name: str = "a.npz") -> Make:
    """Half a gigabyte of zeros in half a megabyte."""

    def make(folder: Path) -> None:
        with (
            zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open(entry, "w") as stream,
        ):
            stream.write(header)
            for _ in range(17):
                stream.write(bytes(16 * MIB))

    return make


def altered(make: Make, alter: Callable[[bytes], bytes], name: str = "a.npz") -> Make:
    """Returns what changes the bytes of the file that another makes."""

    def build(folder: Path) -> None:
        make(folder)
        file = folder / name
        file.write_bytes(alter(file.read_bytes()))

    return build


def encrypted(whole: bytes) -> bytes:
    """A zip archive whose entries say that they have a password."""
    return _flagged(_flagged(whole, b"PK\x03\x04", 6, b"\x01"), b"PK\x01\x02", 8, b"\x01")


def of_unknown_method(whole: bytes) -> bytes:
    return _flagged(_flagged(whole, b"PK\x03\x04", 8, b"\x63"), b"PK\x01\x02", 10, b"\x63")


def of_unknown_version(whole: bytes) -> bytes:
    return _flagged(whole, b"PK\x01\x02", 6, b"\xff")


def with_other_bytes(whole: bytes) -> bytes:
    """A zip archive whose checksums are wrong: its last value of an array is another."""
    at = whole.index(b"PK\x01\x02") - 1
    return whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]


def _flagged(whole: bytes, start: bytes, offset: int, value: bytes) -> bytes:
    parts = whole.split(start)
    at = offset - len(start)
    return start.join([parts[0], *(p[:at] + value + p[at + 1 :] for p in parts[1:])])


NPYS: dict[str, tuple[Make, str]] = {
    "floats": (npy(images() / 255), "images are uint8"),
    "signed bytes": (npy(images().astype(np.int8)), "images are uint8"),
    "truths": (npy(images() > 9), "images are uint8"),
    "complex": (npy(images().astype(complex)), "images are uint8"),
    "records": (npy(np.zeros(4, dtype=[("a", "u1"), ("b", "u1")])), "images are uint8"),
    "texts": (npy(np.array(["a", "b"])), "images are uint8"),
    "a matrix": (npy(images()[:, :, 0, 0]), "wanted (N, H, W)"),
    "one number": (npy(np.uint8(3)), "a.npy"),
    "two channels": (npy(images()[..., :2]), "wanted (N, H, W)"),
    "two readings": (npy(images()[:, :3]), "only one way to read it"),
    "no image": (npy(images()[:0]), "no image"),
    "no width": (npy(images()[:, :, :0]), "no image"),
    "a single image": (npy(images(1)), "single image"),
    "objects": (npy(np.array([Payload(), Payload()])), "a.npy"),
    "cut short": (altered(npy(images()), lambda b: b[:500], "a.npy"), "a.npy"),
    "nothing": (writing("a.npy", b""), "neither a .npy nor a .npz file"),
    "a text": (writing("a.npy", b"1 2 3\n"), "neither a .npy nor a .npz file"),
    "a pickle": (writing("a.npy", b"\x80\x04N."), "neither a .npy nor a .npz file"),
    "a huge promise": (writing("a.npy", promising("(10, 100000, 1000000)")), "a.npy"),
    "an overflow": (writing("a.npy", promising("(4294967296, 4294967296, 9)")), "a.npy"),
    "a negative side": (writing("a.npy", promising("(-1, 8, 8)")), "a.npy"),
    "no dictionary": (writing("a.npy", b"\x93NUMPY\x01\0\x04\0exit"), "a.npy"),
    "a pipe": (lambda folder: os.mkfifo(folder / "a.npy"), "a.npy is no regular file"),
    "a folder": (lambda folder: (folder / "a.npy").mkdir(), "no image in a.npy"),
}

NPZS: dict[str, tuple[Make, str]] = {
    "neither images nor statistics": (npz(weights=np.ones(3)), "has no images"),
    "mean without covariance": (npz(mu=np.ones(3)), "has no images"),
    "nothing inside": (zipped(), "has no images"),
    "test images alone": (npz(test_images=images()), "has no images"),
    "floats": (npz(images=images() / 255), "images are uint8"),
    "objects": (npz(images=np.array([Payload()])), "a.npz"),
    "pickled classes": (
        npz(images=images(), labels=np.zeros(40, int), classes=np.array([Payload()])),
        "a.npz",
    ),
    "too few labels": (npz(images=images(), labels=np.zeros(3, int)), "labels"),
    "a text for an array": (zipped(("images.npy", b"no array")), "a.npz"),
    "a folder inside": (zipped(("images.npy/", b"")), "has no images"),
    "an array twice": (
        zipped(*[("images.npy", promising("(40, 1, 1)", content=bytes(40)))] * 2),
        "images twice",
    ),
    "a promise": (zipped(("images.npy", promising("(1000, 1000, 1000)"))), "promises"),
    "a bomb": (
        bomb(promising("(278528, 32, 32)", content=b""), "images.npy"),
        "decompression bombs",
    ),
    "cut short": (
        altered(npz(images=images()), lambda b: b[:500]),
        "neither a .npy nor a .npz file",
    ),
    "a cut list of names": (altered(npz(images=images()), lambda b: b[:-80] + b[-22:]), "a.npz"),
    "encrypted": (altered(npz(images=images()), encrypted), "password"),
    "an unknown method": (altered(npz(images=images()), of_unknown_method), "a.npz"),
    "a later version of zip": (altered(npz(images=images()), of_unknown_version), "a.npz"),
    "a wrong checksum": (altered(npz(images=images()), with_other_bytes), "CRC"),
    "nothing": (writing("a.npz", b""), "neither a .npy nor a .npz file"),
    "a text": (writing("a.npz", b"mu, sigma\n"), "neither a .npy nor a .npz file"),
    "a pipe": (lambda folder: os.mkfifo(folder / "a.npz"), "a.npz is no regular file"),
}


def idx(content: bytes, labels: bytes = struct.pack(">4Bi", 0, 0, 8, 1, 2) + bytes(2)) -> Make:
    """A folder `a` of idx files with these for its images."""

    def make(folder: Path) -> None:
        for side in ("train", "t10k"):
            writing(f"a/{side}-images-idx3-ubyte.gz", gzip.compress(content))(folder)
            writing(f"a/{side}-labels-idx1-ubyte", labels)(folder)

    return make


def _sized(*sizes: int) -> bytes:
    return struct.pack(f">4B{len(sizes)}i", 0, 0, 8, len(sizes), *sizes)


IDXS: dict[str, tuple[Make, str]] = {
    "junk": (idx(b"no such thing"), "no idx file"),
    "another rank": (idx(_sized(2, 4) + bytes(8)), "no idx file"),
    "too little": (idx(_sized(2, 4, 4) + bytes(8)), "promises 2 x 4 x 4 bytes and holds 8"),
    "too much": (idx(_sized(2, 4, 4) + bytes(99)), "holds 33 or more"),
    "a negative side": (idx(_sized(2, -4, 4)), "promises"),
    "a bomb": (idx(_sized(2**20, 2**10, 2**10)), "would unpack"),
    "other labels": (idx(_sized(3, 4, 4) + bytes(48)), "3 test images but 2 labels"),
    "no gzip": (
        lambda folder: (idx(b"")(folder), writing("a/t10k-images-idx3-ubyte.gz", "x")(folder)),
        "Not a gzipped file",
    ),
}


def prepared(damage: Callable[[Path], object]) -> Make:
    """A prepared folder `a` that something happened to."""

    def make(folder: Path) -> None:
        np.savez(folder / "source.npz", images=images())
        prepare(DataConfig(source=str(folder / "source.npz")), folder / "a", workers=0)
        damage(folder / "a")

    return make


def _flip(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 255]))


PREPARED: dict[str, tuple[Make, str]] = {
    "a changed byte": (prepared(lambda a: _flip(a / "images-00000.npy")), "images-00000.npy"),
    "a cut shard": (
        prepared(lambda a: os.truncate(a / "images-00000.npy", 300)),
        "images-00000.npy",
    ),
    "a lost shard": (prepared(lambda a: (a / "images-00000.npy").unlink()), "images-00000.npy"),
    "another shard": (
        prepared(lambda a: np.save(a / "images-00000.npy", images(3))),
        "images-00000.npy",
    ),
    "a manifest that is no JSON": (
        prepared(lambda a: (a / "prepared.json").write_text("{")),
        "prepared.json",
    ),
    "a manifest of nothing": (
        prepared(lambda a: (a / "prepared.json").write_text("{}")),
        "prepared.json",
    ),
}

CASES = [
    *(
        Case(f"npy of {name}", ("fid", "a.npy", "--real", "bright"), told, make)
        for name, (make, told) in NPYS.items()
    ),
    *(
        Case(f"npz of {name}", ("fid", "bright", "--real", "a.npz"), told, make)
        for name, (make, told) in NPZS.items()
    ),
    *(
        Case(
            f"idx with {name}",
            ("fid", "idx:a", "--real", "bright", "--a-split", "test"),
            told,
            make,
        )
        for name, (make, told) in IDXS.items()
    ),
    *(
        Case(f"prepared with {name}", ("fid", "a", "--real", "bright"), told, make)
        for name, (make, told) in PREPARED.items()
    ),
]
