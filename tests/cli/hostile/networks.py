"""Extractors that are not there, that fail, and weights that are not those published."""

import os
from pathlib import Path

import torch
from safetensors.torch import save_file

from hvae.metrics.features.inception import INCEPTION
from tests.cli.hostile.arrays import Payload
from tests.cli.hostile.case import Case, Make, nothing, writing

MODULE = Path(__file__).with_name("odd.py")

FAILING = {
    "unparsed": "def class:\n",
    "unmade_module": "raise RuntimeError('no\\nluck')\n",
    "needy": "import no_such_package\n",
    "leaving": "import sys\nsys.exit(0)\n",
}

NAMES: dict[str, tuple[str, str]] = {
    "no such network": ("clip", "got 'clip'"),
    "no name": ("", "got ''"),
    "no module": ("nowhere:Net", "no module nowhere"),
    "no class": ("odd:Missing", "odd has no class Missing"),
    "no class named": ("odd:", "wanted module:Class"),
    "no module named": (":Pooled", "wanted module:Class"),
    "a function": ("os.path:join", "no class join"),
    "a class of another kind": ("builtins:int", "dim"),
    "two colons": ("odd:Pooled:x", "no class Pooled:x"),
    "a relative module": (".odd:Pooled", ".odd:Pooled"),
    "an escape": ("\x1b[31m:Net", r"\x1b[31m"),
    "a syntax error": ("unparsed:Net", "SyntaxError"),
    "a module that raises": ("unmade_module:Net", "RuntimeError: no"),
    "a module that needs another": ("needy:Net", "no_such_package"),
    "a module that leaves": ("leaving:Net", "SystemExit"),
    "a class that raises": ("odd:Unmade", "RuntimeError: no luck"),
    "a class that leaves": ("odd:Leaving", "SystemExit"),
    "a call that raises": ("odd:Failing", "(odd.py, line "),
    "a call that leaves": ("odd:LeavingLater", "SystemExit"),
    "no call": ("odd:NotCallable", "__call__"),
    "no width": ("odd:NoWidth", "dim"),
    "no columns": ("odd:NoColumns", "dim"),
    "a word for the width": ("odd:WordForWidth", "dim"),
    "a truth for the width": ("odd:TruthForWidth", "dim"),
    "a width that raises": ("odd:RaisingWidth", "unknown"),
    "a number for the hash": ("odd:NumberForHash", "sha256"),
    "a number for protocols": ("odd:NumberForProtocols", "protocols"),
    "a word for protocols": ("odd:WordForProtocols", "protocols"),
    "a class that takes no protocol": ("odd:DeafToProtocol", "TypeError"),
    "another width": ("odd:Narrow", "(32, 13), got float32 (32, 12)"),
    "float64": ("odd:Double", "got float64"),
    "float16": ("odd:Half", "got float16"),
    "an array": ("odd:Array", "got a ndarray"),
    "nothing": ("odd:Nothing", "got a NoneType"),
    "a pair": ("odd:Pair", "got a tuple"),
    "one row": ("odd:OneRow", "got float32 (1, 12)"),
    "maps": ("odd:Maps", "got float32 (32, 3, 9, 9)"),
    "NaN": ("odd:NotFinite", "16 of 16 images are not finite, first those of dark/00.png"),
    "infinity": ("odd:Endless", "00.png"),
    "lite0 at 63": ("lite0@63", "wanted a resolution"),
    "lite0 at 0": ("lite0@0", "wanted a resolution"),
    "lite0 at nothing": ("lite0@", "got 'lite0@'"),
    "lite0 at a word": ("lite0@big", "got 'lite0@big'"),
    "lite0 at 30 digits": (f"lite0@{'9' * 30}", "wanted a resolution"),
    "lite0 at 5000 digits": (f"lite0@{'9' * 5000}", "lite0@"),
    "lite0 at a negative": ("lite0@-64", "got 'lite0@-64'"),
    "inception at a resolution": ("inception@64", "got 'inception@64'"),
    "inception that is missing": (
        "inception",
        "weights-inception-2015-12-05-6726825d.pth is missing",
    ),
    "dinov2 that is missing": ("dinov2", "the DINOv2 model is missing"),
}

COPY = INCEPTION.name.replace(".pth", ".safetensors")
TENSORS = {"a": torch.zeros(2)}


def _saved(name: str, header: dict[str, str]) -> Make:
    return lambda folder: save_file(TENSORS, folder / name, header)


def _with_code(folder: Path) -> None:
    torch.save(Payload(), folder / "w.pth")


# Files of weights: what makes them, the word for --weights, and what is said.
WEIGHTS: dict[str, tuple[Make, str, str]] = {
    "missing": (nothing, "nowhere.pth", "no such file"),
    "an empty file": (writing("w.pth", b""), "w.pth", "not the published weights"),
    "other bytes": (writing("w.pth", b"weights"), "w.pth", "not the published weights"),
    "a pickle with code": (_with_code, "w.pth", "not the published weights"),
    "other tensors": (lambda f: torch.save(TENSORS, f / "w.pth"), "w.pth", "not the published"),
    "an empty folder": (lambda f: (f / "w").mkdir(), "w", "no folder that holds"),
    "a folder with another file": (writing(f"w/{INCEPTION.name}", b"x"), "w", "not the published"),
    "a folder of a folder": (lambda f: (f / "w" / INCEPTION.name).mkdir(parents=True), "w", "w/"),
    "a pipe": (lambda f: os.mkfifo(f / "w.pth"), "w.pth", "no such file"),
    "a copy that is none": (writing(COPY, b"copy"), COPY, "cannot be read"),
    "a copy of other weights": (_saved(COPY, {"origin_sha256": "0"}), COPY, "origin sha256"),
    "a copy that was changed": (
        _saved(COPY, {"origin_sha256": INCEPTION.sha256, "tensors_sha256": "0"}),
        COPY,
        "changed",
    ),
    "an escape": (nothing, "\x1b[31m.pth", r"\x1b[31m.pth"),
}

ENVIRONMENT: dict[str, tuple[Make, dict[str, str], str]] = {
    "HVAE_WEIGHTS that leads nowhere": (nothing, {"HVAE_WEIGHTS": "nowhere"}, "is missing"),
    "HVAE_WEIGHTS with other bytes": (
        writing(f"w/{INCEPTION.name}", b"x"),
        {"HVAE_WEIGHTS": "w"},
        "not the published weights",
    ),
    "HVAE_WEIGHTS of no home": (nothing, {"HVAE_WEIGHTS": "~no-such-user/w"}, "~no-such-user"),
    "a cache of no home": (nothing, {"XDG_CACHE_HOME": "~no-such-user"}, "~no-such-user"),
    "a cache that is a file": (writing("c", b""), {"XDG_CACHE_HOME": "c"}, "is missing"),
}

CASES = [
    *(
        Case(f"network: {name}", ("fid", "bright", "--real", "dark"), told, nothing, feature)
        for name, (feature, told) in NAMES.items()
    ),
    *(
        Case(
            f"weights: {name}",
            ("fid", "bright", "--real", "dark", "--weights", word),
            told,
            make,
            "inception",
        )
        for name, (make, word, told) in WEIGHTS.items()
    ),
    *(
        Case(
            f"environment: {name}",
            ("fid", "bright", "--real", "dark"),
            told,
            make,
            "inception",
            environment,
        )
        for name, (make, environment, told) in ENVIRONMENT.items()
    ),
    Case(
        "a download into a cache that is a file",
        ("fid", "bright", "--real", "dark", "--download"),
        "cannot be downloaded",
        writing("c", b""),
        "inception",
        {"XDG_CACHE_HOME": "c"},
    ),
    Case(
        "weights for lite0",
        ("fid", "bright", "--real", "dark", "--weights", "w"),
        "lite0 brings its own weights",
        features="lite0",
    ),
    Case(
        "weights for a class",
        ("fid", "bright", "--real", "dark", "--weights", "w"),
        "brings its own weights",
    ),
    Case(
        "dinov2 with half a folder",
        ("fid", "bright", "--real", "dark", "--weights", "w"),
        "wanted a folder with",
        writing("w/dinov2-large/config.json", "{}"),
        "dinov2",
    ),
    Case(
        "dinov2 with a protocol of others",
        ("fid", "bright", "--real", "dark", "--protocol", "legacy-tf"),
        "wanted one of clean",
        features="dinov2",
    ),
]
