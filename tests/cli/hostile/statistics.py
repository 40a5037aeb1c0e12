"""Files of statistics, as `hvae fid-stats` writes them, of any damage."""

import json
import os
import struct
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.cli.hostile.case import Case, Make, writing

HEADER = {
    "format": "hvae statistics 1",
    "features": "odd:Pooled",
    "features_sha256": "pooled-1",
    "protocol": "own",
    "n": "100",
}
ZEROS = torch.zeros(12, dtype=torch.float64)
EYE = torch.eye(12, dtype=torch.float64)


def with_entry(matrix: Tensor, row: int, column: int, value: float) -> Tensor:
    """A symmetric matrix with another value in two places."""
    changed = matrix.clone()
    changed[row, column] = changed[column, row] = value
    return changed


def raw(header: object, data: bytes = b"", length: int | None = None) -> Make:
    """A file whose header is any JSON or bytes, and says any length of itself."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    start = struct.pack("<Q", len(text) if length is None else length)
    return writing("s.safetensors", start + text + data)


def entry(dtype: str, shape: list[Any], *offsets: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


def saved(*, header: dict[str, str] | None = None, **tensors: Tensor | None) -> Make:
    """A whole file with other tensors or words in its header; None leaves a tensor out."""
    known = {"mean": ZEROS, "cov": EYE, **tensors}
    kept = {name: tensor for name, tensor in known.items() if tensor is not None}
    words = {name: word for name, word in {**HEADER, **(header or {})}.items() if word != "-"}
    return lambda folder: save_file(kept, folder / "s.safetensors", words)


MEAN = entry("F64", [1], 0, 8)
COV = entry("F64", [1, 1], 8, 16)
META = {"__metadata__": HEADER}

BYTES: dict[str, tuple[Make, str]] = {
    "nothing": (writing("s.safetensors", b""), "cannot read the statistics"),
    "four bytes": (writing("s.safetensors", b"1234"), "cannot read the statistics"),
    "a text": (writing("s.safetensors", b"mean 1\ncov 2\n"), "cannot read the statistics"),
    "a huge header": (raw(META, length=2**40), "cannot read the statistics"),
    "an endless header": (raw(META, length=2**64 - 1), "cannot read the statistics"),
    "a header longer than the file": (raw(META, length=9999), "cannot read the statistics"),
    "an empty header": (raw(b""), "cannot read the statistics"),
    "no JSON": (raw(b"{mean: 1}"), "cannot read the statistics"),
    "JSON that is cut": (raw(b'{"mean": {"dtype"'), "cannot read the statistics"),
    "a list": (raw([1, 2]), "cannot read the statistics"),
    "nothing but null": (raw(None), "cannot read the statistics"),
    "no UTF-8": (raw(b'{"\xff\xfe": 1}'), "cannot read the statistics"),
    "deep brackets": (raw(b"[" * 100_000), "cannot read the statistics"),
    "words that are numbers": (raw({"__metadata__": {"n": 3}}), "cannot read the statistics"),
    "no tensors": (raw(META), "holds nothing; wanted mean, cov"),
    "an unknown dtype": (raw({**META, "mean": entry("F63", [1], 0, 8)}, bytes(8)), "F63"),
    "offsets beyond the end": (raw({**META, "mean": MEAN, "cov": COV}, bytes(8)), "s.safetensors"),
    "offsets that overlap": (
        raw({**META, "mean": MEAN, "cov": entry("F64", [1, 1], 0, 8)}, bytes(16)),
        "s.safetensors",
    ),
    "offsets that go back": (
        raw({**META, "mean": entry("F64", [1], 8, 0)}, bytes(8)),
        "s.safetensors",
    ),
    "a negative offset": (raw({**META, "mean": entry("F64", [1], -8, 0)}), "s.safetensors"),
    "a negative side": (raw({**META, "mean": entry("F64", [-1], 0, 8)}, bytes(8)), "s.safetensors"),
    "a shape that overflows": (
        raw({**META, "cov": entry("F64", [2**32, 2**32], 0, 8)}, bytes(8)),
        "s.safetensors",
    ),
    "a huge shape": (
        raw({**META, "cov": entry("F64", [10**6, 10**6], 0, 8 * 10**12)}),
        "s.safetensors",
    ),
    "bytes after the end": (raw({**META, "mean": MEAN, "cov": COV}, bytes(99)), "s.safetensors"),
    "a folder": (lambda folder: (folder / "s.safetensors").mkdir(), "s.safetensors"),
    "a pipe": (lambda folder: os.mkfifo(folder / "s.safetensors"), "s.safetensors"),
    "a link to itself": (
        lambda folder: (folder / "s.safetensors").symlink_to("s.safetensors"),
        "s.safetensors",
    ),
    "nothing at all": (lambda folder: None, "s.safetensors"),
}

HALF = 0.5 * EYE + 0.5
TENSORS: dict[str, tuple[Make, str]] = {
    "no mean": (saved(mean=None), "wanted mean, cov"),
    "no covariance": (saved(cov=None), "wanted mean, cov"),
    "a tensor too many": (saved(weights=ZEROS.clone()), "weights"),
    "a mean of 13": (saved(mean=torch.zeros(13).double()), "do not belong together"),
    "a matrix for a mean": (saved(mean=ZEROS[:, None]), "do not belong together"),
    "a number for a mean": (saved(mean=ZEROS[0]), "do not belong together"),
    "no features": (saved(mean=ZEROS[:0], cov=EYE[:0, :0]), "do not belong together"),
    "a flat covariance": (saved(cov=torch.ones(144).double()), "do not belong together"),
    "an oblong covariance": (saved(cov=EYE[:, :11].contiguous()), "do not belong together"),
    "integers": (saved(mean=ZEROS.int()), "no floats"),
    "truths": (saved(cov=EYE.bool()), "no floats"),
    "complex numbers": (saved(mean=ZEROS.to(torch.complex64)), "s.safetensors"),
    "halves that overflow": (saved(mean=torch.full((12,), 1e6).half()), "not finite"),
    "NaN in the mean": (saved(mean=ZEROS + torch.nan), "not finite"),
    "one NaN in the covariance": (saved(cov=with_entry(EYE, 3, 5, torch.nan)), "not finite"),
    "infinity in the covariance": (saved(cov=with_entry(EYE, 3, 3, torch.inf)), "not finite"),
    "a negative variance": (saved(cov=with_entry(EYE, 3, 3, -1.0)), "a variance is negative"),
    "an asymmetric covariance": (saved(cov=EYE + torch.ones(12, 12).double().triu()), "symmetric"),
    "a negative eigenvalue": (saved(cov=with_entry(EYE, 3, 5, 1.5)), "s.safetensors"),
    "a negative eigenvalue, few images": (
        saved(cov=with_entry(EYE, 3, 5, 1.5), header={"n": "5"}),
        "a negative eigenvalue",
    ),
    "a variance of 0 that covaries": (
        saved(cov=with_entry(with_entry(EYE, 3, 3, 0.0), 3, 5, 0.5)),
        "s.safetensors",
    ),
    "enormous numbers": (saved(mean=ZEROS + 1e200), "overflows"),
    "enormous variances": (saved(cov=EYE * 1e308), "overflows"),
    "a factor of another size": (saved(chol=EYE[:11, :11].contiguous()), "factor"),
    "a factor in float32": (saved(chol=EYE.float()), "factor"),
    "a factor twice too large": (saved(chol=2 * EYE), "factor"),
    "a factor that is not finite": (saved(chol=EYE * torch.nan), "factor"),
    "a factor of another covariance": (saved(cov=HALF, chol=EYE), "factor"),
}

WORDS: dict[str, tuple[Make, str]] = {
    "no format": (saved(header={"format": "-"}), "format=None"),
    "a later format": (saved(header={"format": "hvae statistics 2"}), "hvae statistics 2"),
    "another format": (saved(header={"format": "pt"}), "format='pt'"),
    "no number": (saved(header={"n": "-"}), "n=''"),
    "a word for a number": (saved(header={"n": "many"}), "n='many'"),
    "a negative number": (saved(header={"n": "-3"}), "n='-3'"),
    "one image": (saved(header={"n": "1"}), "n='1'"),
    "a fraction": (saved(header={"n": "3.5"}), "n='3.5'"),
    "no finite number": (saved(header={"n": "nan"}), "n='nan'"),
    "digits of another script": (saved(header={"n": "٣٣"}), "n="),
    "a number of 4000 digits": (saved(header={"n": "9" * 4000}), "n="),
    "an escape for a number": (saved(header={"n": "\x1b[31m"}), r"n='\x1b[31m'"),
    "another network": (saved(header={"features": "inception"}), "features inception"),
    "no network": (saved(header={"features": "-"}), "features None"),
    "other weights": (saved(header={"features_sha256": "0" * 64}), "features_sha256 000"),
    "another protocol": (saved(header={"protocol": "clean"}), "protocol clean"),
    "an escape for a protocol": (saved(header={"protocol": "\x1b[2J\n"}), r"protocol \x1b[2J"),
    "a foreign provenance": (
        saved(header={"provenance": "external", "features": "x"}),
        "says provenance",
    ),
    "another width": (saved(mean=ZEROS[:7], cov=EYE[:7, :7].contiguous()), "7 features"),
}


CASES = [
    *(
        Case(f"statistics: {name}", ("fid", "bright", "--real", "s.safetensors"), told, make)
        for table in (BYTES, TENSORS, WORDS)
        for name, (make, told) in table.items()
    ),
    Case(
        "statistics as A that are not finite",
        ("fid", "s.safetensors", "--real", "bright"),
        "not finite",
        saved(mean=ZEROS + torch.nan),
    ),
    Case(
        "statistics as A that are no JSON",
        ("fid", "s.safetensors", "--real", "bright"),
        "cannot read the statistics",
        raw(b"{mean: 1}"),
    ),
    Case(
        "statistics for fid-stats",
        ("fid-stats", "s.safetensors", "-o", "t.safetensors"),
        "wanted images",
        saved(),
    ),
    Case(
        "statistics and kid",
        ("fid", "bright", "--real", "s.safetensors", "--metrics", "fid,kid"),
        "--metrics fid alone",
        saved(),
    ),
    Case(
        "statistics and --infinity",
        ("fid", "s.safetensors", "--real", "bright", "--infinity"),
        "only statistics",
        saved(),
    ),
    Case(
        "statistics and --bootstrap",
        ("fid", "s.safetensors", "--real", "bright", "--bootstrap", "5"),
        "only statistics",
        saved(),
    ),
    Case(
        "statistics and --num",
        ("fid", "s.safetensors", "--real", "bright", "--num", "5"),
        "--num",
        saved(),
    ),
    Case(
        "statistics and --num-real",
        ("fid", "bright", "--real", "s.safetensors", "--num-real", "5"),
        "--num",
        saved(),
    ),
    Case(
        "statistics and a split",
        ("fid", "bright", "--real", "s.safetensors", "--split", "test"),
        "split",
        saved(),
    ),
    Case(
        "statistics and --size",
        ("fid", "s.safetensors", "--real", "s.safetensors", "--size", "9"),
        "--size",
        saved(),
    ),
    Case(
        "statistics and --reconstructions",
        ("fid", "bright", "--real", "s.safetensors", "--reconstructions"),
        "wants a run",
        saved(),
    ),
]
