"""Statistics of other programs, `mu` and `sigma` in a .npz, of any damage."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.cli.hostile.arrays import (
    Payload,
    altered,
    bomb,
    encrypted,
    npz,
    promising,
    with_other_bytes,
    zipped,
)
from tests.cli.hostile.case import Case, Make
from tests.cli.hostile.statistics import EYE, with_entry


def _statistics(**arrays: Any) -> Make:
    known = {"mu": np.zeros(12), "sigma": np.eye(12), **arrays}
    return npz(**{name: array for name, array in known.items() if array is not None})


def _sigma(row: int, column: int, value: float) -> np.ndarray:
    return with_entry(EYE, row, column, value).numpy()


def _npy(array: np.ndarray) -> bytes:
    return promising(str(array.shape), "<f8", array.tobytes())


NPZS: dict[str, tuple[Make, str]] = {
    "no covariance": (_statistics(sigma=None), "has no images"),
    "no mean": (_statistics(mu=None), "has no images"),
    "a covariance of 13": (_statistics(sigma=np.eye(13)), "do not belong together"),
    "a mean of no numbers": (_statistics(mu=np.zeros(0), sigma=np.zeros((0, 0))), "do not belong"),
    "a number for a mean": (_statistics(mu=np.float64(0)), "do not belong together"),
    "three dimensions": (_statistics(sigma=np.eye(12)[None]), "do not belong together"),
    "7 features": (_statistics(mu=np.zeros(7), sigma=np.eye(7)), "holds 7 features"),
    "integers": (_statistics(mu=np.zeros(12, int)), "mu is int64"),
    "complex numbers": (_statistics(sigma=np.eye(12, dtype=complex)), "sigma is complex128"),
    "texts": (_statistics(mu=np.array(["0"] * 12)), "mu is <U1"),
    "truths": (_statistics(sigma=np.eye(12, dtype=bool)), "sigma is bool"),
    "objects": (_statistics(mu=np.array([Payload()] * 12)), "pickle"),
    "NaN": (_statistics(mu=np.full(12, np.nan)), "not finite"),
    "halves that overflow": (_statistics(mu=np.full(12, np.inf, np.float16)), "not finite"),
    "asymmetry": (_statistics(sigma=np.triu(np.ones((12, 12)))), "not symmetric"),
    "a negative variance": (_statistics(sigma=_sigma(3, 3, -1)), "a variance is negative"),
    "a negative eigenvalue": (_statistics(sigma=_sigma(3, 5, 1.5)), "a.npz"),
    "a bomb": (
        lambda folder: (
            bomb(promising("(36000000,)", "<f8", b""), "sigma.npy")(folder),
            _added(folder / "a.npz", "mu.npy", _npy(np.zeros(12))),
        ),
        "decompression bombs",
    ),
    "a promise": (
        zipped(("mu.npy", promising("(1000000000,)", "<f8")), ("sigma.npy", _npy(np.eye(12)))),
        "promises",
    ),
    "the mean twice": (
        zipped(*[("mu.npy", _npy(np.zeros(12)))] * 2, ("sigma.npy", _npy(np.eye(12)))),
        "mu twice",
    ),
    "a folder inside": (
        zipped(("s/mu.npy", _npy(np.zeros(12))), ("s/sigma.npy", _npy(np.eye(12)))),
        "has no images",
    ),
    "texts for arrays": (zipped(("mu.npy", b"none"), ("sigma.npy", b"none")), "a.npz"),
    "empty arrays": (zipped(("mu.npy", b""), ("sigma.npy", b"")), "a.npz"),
    "cut short": (altered(_statistics(), lambda whole: whole[:-30]), "a.npz"),
    "encrypted": (altered(_statistics(), encrypted), "password"),
    "a wrong checksum": (altered(_statistics(), with_other_bytes), "CRC"),
}


def _added(archive: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(name, content)


CASES = [
    Case(f"statistics of others: {name}", ("fid", "bright", "--real", "a.npz"), told, make)
    for name, (make, told) in NPZS.items()
]
