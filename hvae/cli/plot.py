"""`hvae plot`: the curves of runs, as a figure or as points."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hvae.cli.options import Json
from hvae.cli.output import note, print_result, writing
from hvae.errors import HvaeError, UserError


def plot(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", show_default=False, help="Run folders, one or several."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            show_default="curves.png in the run folder",
            help="A .png, .pdf or .svg file; several runs need one.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Draw the curves of runs: scores, gradients, schedules, throughput, KL of each group.

    Runs that are not done are drawn as far as they are. With --json the points are printed, and a
    figure is drawn only if -o names one.
    """
    from hvae.training.curves import read_curves

    if out is None and not json:
        if len(runs) > 1:
            raise UserError("several runs in one figure: name its file with -o curves.png")
        out = runs[0] / "curves.png"
    curves = [read_curves(run) for run in runs]
    if out is not None:
        from hvae.training.figure import draw_curves

        with writing(out):
            draw_curves(curves, out)
    record = {"out": None if out is None else str(out), "runs": [asdict(c) for c in curves]}
    names = ", ".join(c.name for c in curves)
    print_result(record, f"{out}: {names}", as_json=json)


def leave_curves(run: Path) -> None:
    """Draws `curves.png` into the folder of a run that has ended, if matplotlib is there.

    The run is done whatever comes of it: a failure is a note.
    """
    from hvae.training.curves import read_curves
    from hvae.training.figure import can_draw, draw_curves

    if not can_draw():
        return
    out = run / "curves.png"
    try:
        with writing(out):
            draw_curves([read_curves(run)], out)
    except HvaeError as error:
        note(f"no curves: {error}")
