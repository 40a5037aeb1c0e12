"""`hvae refine`: the adversarial stage of a trained run."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hvae.cli.options import Json
from hvae.cli.output import note, print_result, table
from hvae.cli.train import STOPPED


def refine(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", show_default=False, help="The folder of a trained run.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[refine.KEY=VALUE]...",
            show_default=False,
            help="Settings of this stage, such as refine.images=50000.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Sharpen the images of a trained run, or go on with that.

    Trains corrections of samples and reconstructions against a discriminator. The model stays
    frozen, and its bits/dim are what they were. Every checkpoint is checked on test images; a stage
    that does harm goes back with a weaker adversary, and ends with exit code 1 if that does not
    help. The other verbs then show refined images, unless told --unrefined.
    """
    from hvae.training.refine import refine as train

    result = train(run, overrides or ())
    record = {**asdict(result), "run": str(run), "folder": str(result.folder)}
    rows: dict[str, object] = {"refined": f"{result.folder}, {result.images:,} images"}
    if result.harm is not None:
        harm = result.harm
        rows["reconstructions"] = f"{-harm.psnr:+.2f} dB, colours moved {harm.colour:.1f} levels"
        rows["recall"] = f"{harm.recall:.0%} of that of unrefined samples"
    print_result(record, table(rows), as_json=json)
    if result.weakened:
        log = result.folder / "metrics.jsonl"
        note(f"the adversary was weakened {result.weakened} times; see {log}")
    if result.ended:
        note(f"ended early: {result.ended}")
    if result.stopped:
        note("stopped and saved; run the same command again to go on")
        raise typer.Exit(STOPPED)
