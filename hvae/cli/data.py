"""`hvae data`: looks at sets of images before anything is trained on them."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hvae.cli.options import Json
from hvae.cli.output import example, print_result, table

if TYPE_CHECKING:
    from hvae.data.survey import Survey

# Sizes, classes and damaged files shown to people; --json has all of them.
SHOWN = 10

data = typer.Typer(help="Look at sets of images.", no_args_is_help=True, rich_markup_mode=None)


@data.callback()
def _data() -> None:
    """Keeps `inspect` a verb of its own; typer drops the name of an only command."""


@data.command(epilog=example("hvae data inspect photos/"))
def inspect(
    word: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            show_default=False,
            help="The name of an embedded set, a folder of images, or a .npz file.",
        ),
    ],
    json: Json = False,
) -> None:
    """Count the images of a set, their sizes and classes, and name the damaged files."""
    from hvae.data.survey import survey

    result = survey(word)
    print_result(asdict(result), _text(result), as_json=json)


def _text(result: "Survey") -> str:
    rows = {
        "data": result.data,
        "images": _counts(result.images),
        "size": _counts(result.sizes),
        "channels": _counts(result.channels),
        "classes": "none" if result.classes is None else _counts(result.classes),
        "unreadable": len(result.unreadable),
    }
    for split, sha256 in (result.sha256 or {}).items():
        rows[f"sha256 {split}"] = sha256
    return "\n".join([table(rows), *_shortened(result.unreadable)])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(_shortened([f"{name} ({count})" for name, count in counts.items()]))


def _shortened(lines: "list[str] | tuple[str, ...]") -> list[str]:
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"and {more} more"] if more > 0 else [])]
