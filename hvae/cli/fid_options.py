"""Options that the verbs about sample quality share."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hvae.data.originals import Part


MOST_PIXELS = 2**14  # of a side


class PartName(StrEnum):
    """The parts of a set."""

    TRAIN = "train"
    TEST = "test"
    ALL = "all"


class ProtocolName(StrEnum):
    """How images are resized for the network."""

    CLEAN = "clean"
    LEGACY_PYTORCH = "legacy-pytorch"
    LEGACY_TF = "legacy-tf"


Features = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="The network: inception (FID), dinov2 (FD-DINOv2), lite0 (FD-lite0; its weights come "
        "with hvae[metrics]), or your own module:Class.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        show_default="where it is looked for",
        help="File or folder of the network's weights.",
    ),
]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch the network's weights if they are not there.")
]
Protocol = Annotated[
    ProtocolName | None,
    typer.Option(show_default="clean", help="How images are resized for the network."),
]
Size = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST_PIXELS,
        show_default="their own; with a run its own",
        help="Fit images of sets to this side in pixels first, as training reads them.",
    ),
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad",
        help="Leave unreadable files out, with a warning that names them.",
    ),
]
Batch = Annotated[
    int, typer.Option(min=1, help="Images at a time, in whole chunks of 32; changes no digit.")
]


def part_of_set(name: PartName | None) -> "Part | None":
    """The part of a set that an option names."""
    return None if name is None else name.value
