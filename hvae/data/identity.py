"""What a set of images is, as a count and a hash: records and caches are keyed by it."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvae.data.parallel import parallel_map
from hvae.files import sha256


@dataclass(frozen=True)
class Identity:
    """The number of images and a hexadecimal sha256; equal identities are equal images."""

    count: int
    sha256: str


def pixel_identity(images: Iterable[NDArray[np.uint8]], shape: tuple[int, int, int]) -> Identity:
    """Identity of decoded images: sha256 over `uint8 CxHxW` and the pixels in order.

    Args:
        images: runs of images, each uint8 (n, C, H, W).
        shape: (C, H, W).
    """
    digest = hashlib.sha256(_header(shape))
    count = 0
    for chunk in images:
        digest.update(np.ascontiguousarray(chunk).data)
        count += len(chunk)
    return Identity(count, digest.hexdigest())


def file_identity(root: Path, names: list[str], shape: tuple[int, int, int] | None) -> Identity:
    """Identity of image files: sha256 over `uint8 CxHxW`, then every name and its file's sha256.

    Args:
        root: the folder that `names` are relative to.
        names: sorted relative names, with forward slashes.
        shape: (C, H, W) that the files are decoded to; None for their own, which is hashed as
            `uint8`.
    """
    return named_identity(names, parallel_map(file_sha256, [root / name for name in names]), shape)


def named_identity(
    names: list[str], hashes: Iterable[bytes], shape: tuple[int, int, int] | None
) -> Identity:
    """Identity of image files whose sha256 are known, one for each name; see `file_identity`."""
    digest = hashlib.sha256(_header(shape))
    for name, file_hash in zip(names, hashes, strict=True):
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0" + file_hash)
    return Identity(len(names), digest.hexdigest())


def joint_identity(parts: list[Identity]) -> Identity:
    """Identity of sets one after the other: sha256 over their hashes, a line each."""
    lines = "".join(f"{part.sha256}\n" for part in parts)
    return Identity(
        sum(part.count for part in parts), hashlib.sha256(lines.encode("ascii")).hexdigest()
    )


def file_sha256(path: Path) -> bytes:
    """The sha256 of a file's bytes."""
    return bytes.fromhex(sha256(path))


def _header(shape: tuple[int, int, int] | None) -> bytes:
    sizes = "" if shape is None else " {}x{}x{}".format(*shape)
    return f"uint8{sizes}\n".encode("ascii")
