"""Options that ask for what cannot be, and files that cannot be written."""

from pathlib import Path

import numpy as np

from tests.cli.hostile.arrays import npz
from tests.cli.hostile.case import Case, Make, writing

ONE_IMAGE = npz("one.npz", images=np.zeros((1, 9, 9, 3), np.uint8))

TWO = ("fid", "bright", "--real", "dark")

VALUES: dict[str, tuple[tuple[str, ...], str]] = {
    "no --real": (("fid", "bright"), "--real is missing"),
    "no A": (("fid",), "Missing argument 'A'"),
    "A twice": (("fid", "bright", "dark", "--real", "dark"), "unexpected extra argument"),
    "an unknown option": ((*TWO, "--metric", "fid"), "--metric"),
    "an option without a value": ((*TWO, "--features", "odd:Pooled", "--num"), "--num"),
    "an unknown metric": ((*TWO, "--metrics", "fid,lpips"), "got 'lpips'"),
    "a metric in capitals": ((*TWO, "--metrics", "FID"), "got 'FID'"),
    "an empty metric": ((*TWO, "--metrics", ""), "got ''"),
    "a comma too many": ((*TWO, "--metrics", "fid,,kid"), "got ''"),
    "an escape for a metric": ((*TWO, "--metrics", "\x1b[31m"), r"\x1b[31m"),
    "a warm temperature": (("fid", "run", "--temperature", "warm"), "got warm"),
    "an empty temperature": (("fid", "run", "--temperature", ""), "--temperature"),
    "a temperature too many": (("fid", "run", "--temperature", "1,"), "--temperature"),
    "a negative temperature": (("fid", "run", "--temperature", "-0.5"), "--temperature"),
    "no finite temperature": (("fid", "run", "--temperature", "inf"), "--temperature"),
    "no temperature": (("fid", "run", "--temperature", "nan"), "--temperature"),
    "a temperature that overflows": (("fid", "run", "--temperature", "1e999"), "--temperature"),
    "one image": ((*TWO, "--num", "1"), "--num"),
    "no images": ((*TWO, "-n", "0"), "--num"),
    "a negative number": ((*TWO, "-n", "-5"), "--num"),
    "more images than there are": ((*TWO, "-n", "17"), "16 images, not 17"),
    "far more images": ((*TWO, "-n", "9" * 30), "16 images, not 999"),
    "a word for a number": ((*TWO, "-n", "many"), "--num"),
    "a fraction of an image": ((*TWO, "-n", "4.5"), "--num"),
    "one real image": ((*TWO, "--num-real", "1"), "--num-real"),
    "more real images than there are": ((*TWO, "--num-real", "17"), "16 images, not 17"),
    "one resample": ((*TWO, "--bootstrap", "1"), "resamples"),
    "fewer resamples than none": ((*TWO, "--bootstrap", "-1"), "--bootstrap"),
    "no batch": ((*TWO, "--batch", "0"), "--batch"),
    "a negative seed": ((*TWO, "--seed", "-1"), "--seed"),
    "a seed of 30 digits": ((*TWO, "--metrics", "kid", "--seed", "9" * 30), "--seed"),
    "no size": ((*TWO, "--size", "0"), "--size"),
    "an enormous size": ((*TWO, "--size", "1000000000"), "--size"),
    "an unknown split": ((*TWO, "--a-split", "valid"), "--a-split"),
    "an unknown protocol": ((*TWO, "--protocol", "best"), "--protocol"),
    "a protocol of others": ((*TWO, "--protocol", "clean"), "wanted one of own"),
    "an unknown output": (("fid", "run", "--output", "median"), "--output"),
    "too few to extrapolate": ((*TWO, "--infinity"), "at least 30 fake images"),
    "too few for neighbours": (
        (*TWO, "--metrics", "prdc", "-n", "3"),
        "fake images than neighbours",
    ),
    "too few real ones for neighbours": (
        (*TWO, "--metrics", "prdc", "--num-real", "5"),
        "real images than neighbours",
    ),
    "a set without a test split": ((*TWO[:3], "one.npz", "--split", "test"), "one.npz"),
}


def _arrays(**shapes: tuple[int, ...]) -> Make:
    """Files `a.npz` and `b.npz` of images: noise in the first, black in the second."""

    def make(folder: Path) -> None:
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 256, (20, *shapes["a"]), dtype=np.uint8)
        npz("a.npz", images=noise)(folder)
        npz("b.npz", images=np.zeros((20, *shapes["b"]), np.uint8))(folder)

    return make


SHARP = ("fid", "a.npz", "--real", "b.npz", "--metrics", "sharpness")
SHARPNESS: dict[str, tuple[Make, str]] = {
    "of two sizes": (_arrays(a=(9, 9, 3), b=(12, 12, 3)), "of one size"),
    "of nearly one size": (_arrays(a=(9, 9, 3), b=(8, 8, 3)), "of one size"),
    "of blank images": (_arrays(a=(9, 9, 3), b=(9, 9, 3)), "blank"),
    "of two pixels": (_arrays(a=(2, 2, 3), b=(2, 2, 3)), "at least 3 x 3"),
    "of a line": (_arrays(a=(1, 50), b=(1, 50)), "at least 3 x 3"),
}


def out(file: str) -> tuple[str, ...]:
    return ("fid-stats", "bright", "-o", file)


OUT: dict[str, tuple[Make, tuple[str, ...], str]] = {
    "no file": (lambda f: None, ("fid-stats", "bright"), "Missing option '--out'"),
    "an empty file": (lambda f: None, out(""), "wanted a .safetensors file"),
    "another suffix": (lambda f: None, out("s.npz"), "wanted a .safetensors file"),
    "no suffix": (lambda f: None, out("s"), "wanted a .safetensors file"),
    "nothing but a suffix": (lambda f: None, out(".safetensors"), "wanted a .safetensors file"),
    "a folder": (lambda f: (f / "s.safetensors").mkdir(), out("s.safetensors"), "cannot write"),
    "a file for a folder": (writing("f", "x"), out("f/s.safetensors"), "cannot write"),
    "a file for a folder above": (writing("f", "x"), out("f/g/h/s.safetensors"), "cannot write"),
    "a folder of the system": (lambda f: None, out("/proc/none/s.safetensors"), "cannot write"),
    "a long name": (lambda f: None, out(f"{'s' * 300}.safetensors"), "cannot write"),
    "a link to itself": (
        lambda f: (f / "l").symlink_to("l"),
        out("l/s.safetensors"),
        "cannot write",
    ),
}

CASES = [
    *(Case(f"option: {name}", words, told, ONE_IMAGE) for name, (words, told) in VALUES.items()),
    *(Case(f"sharpness {name}", SHARP, told, make) for name, (make, told) in SHARPNESS.items()),
    *(Case(f"--out: {name}", words, told, make) for name, (make, words, told) in OUT.items()),
]
