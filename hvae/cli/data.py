"""`hvae data`: looks at sets of images, and decodes them once, before anything is trained."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hvae.cli.options import Json
from hvae.cli.output import example, print_result, progress, table
from hvae.errors import UserError

if TYPE_CHECKING:
    from hvae.data.manifest import Manifest
    from hvae.data.survey import Survey

# Sizes and classes shown to people, and problems; --json has all of them.
SHOWN = 10
SHOWN_PROBLEMS = 50

data = typer.Typer(
    help="Look at sets of images, and prepare them for training.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@data.command(epilog=example("hvae data inspect photos/"))
def inspect(
    word: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            show_default=False,
            help="The name of an embedded set, a folder of images or a prepared one, or a .npz "
            "file.",
        ),
    ],
    json: Json = False,
) -> None:
    """Count the images of a set, their sizes, classes and kinds, and name every problem.

    Of a prepared folder, every byte is checked against its manifest.
    """
    from hvae.data.survey import survey

    result = survey(word)
    print_result(asdict(result), _text(result), as_json=json)


@data.command(
    epilog=example(
        "hvae data prepare photos/ -o photos-256 --size 256\n"
        "hvae train configs/own_images_256.yaml data.source=photos-256"
    )
)
def prepare(
    word: Annotated[
        str,
        typer.Argument(
            metavar="SRC", show_default=False, help="A folder of images, or any other set."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="DST", show_default=False, help="The folder to make."
        ),
    ],
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="N|HxW",
            show_default="the images' own",
            help="Height and width in pixels; images are cropped to this shape and resized.",
        ),
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(
            "--channels",
            min=1,
            max=3,
            show_default="the images' own",
            help="1 for grey, 3 for RGB.",
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave files out that cannot be read.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=0, show_default="one a core", help="Processes that decode images."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Decode and resize a set once, into a folder that training reads without decoding.

    The images stay exactly those that training would have made of SRC. A byte is stored for every
    value: 70,000 images of 256 x 256 take 13 GiB. After a kill the same command goes on.
    """
    from hvae.data.config import DataConfig
    from hvae.data.prepare import prepare

    if channels == 2:
        raise UserError("--channels is 2; wanted 1 for grey or 3 for RGB")
    wanted = {"source": word, "size": _size(size), "channels": channels, "skip_bad": skip_bad}
    config = DataConfig.model_validate(wanted)
    manifest = prepare(config, output, workers=workers, progress=progress)
    record = _prepared(output, manifest)
    print_result(record, _prepared_text(record, manifest), as_json=json)


def _size(text: str | None) -> int | tuple[int, int] | None:
    """256 for a square, 192x256 for height and width."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if not 1 <= len(sides) <= 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise UserError(f"--size is {text}; wanted pixels, such as 256, or height x width: 192x256")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def _prepared(folder: Path, manifest: "Manifest") -> dict[str, Any]:
    plan = manifest.plan
    return {
        "folder": str(folder),
        "source": plan.source,
        "images": {split: found.count for split, found in manifest.identity.items()},
        "shape": list(plan.shape),
        "bytes": plan.num_rows * plan.image_bytes,
        "sha256": {split: found.sha256 for split, found in manifest.identity.items()},
        "skipped": [entry.model_dump() for entry in manifest.skipped],
    }


def _prepared_text(record: Mapping[str, Any], manifest: "Manifest") -> str:
    channels, height, width = record["shape"]
    rows = {
        "folder": record["folder"],
        "images": _counts(record["images"]),
        "size": f"{height}x{width}",
        "channels": channels,
        "disk": f"{record['bytes'] / 2**20:,.1f} MiB",
        "skipped": len(manifest.skipped),
    }
    skipped = [f"skipped {entry.name}: {entry.reason}" for entry in manifest.skipped]
    return "\n".join([table(rows), *_shortened(skipped, SHOWN_PROBLEMS)])


def _text(result: "Survey") -> str:
    rows = {
        "data": result.data,
        "images": _counts(result.images),
        "size": _counts(result.sizes),
        "channels": _counts(result.channels),
        "classes": "none" if result.classes is None else _counts(result.classes),
        "converted": _counts(result.converted) or "none",
        "other files": _counts(result.others) or "none",
        "unreadable": len(result.unreadable),
        "links": len(result.links),
    }
    for split, sha256 in (result.sha256 or {}).items():
        rows[f"sha256 {split}"] = sha256
    problems = [
        f"{problem.kind}: {problem.file}: {problem.reason}"
        for problem in (*result.links, *result.unreadable)
    ]
    return "\n".join([table(rows), *_shortened(problems, SHOWN_PROBLEMS)])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(_shortened([f"{name} ({count})" for name, count in counts.items()]))


def _shortened(lines: list[str], shown: int = SHOWN) -> list[str]:
    more = len(lines) - shown
    return [*lines[:shown], *([f"and {more} more"] if more > 0 else [])]
