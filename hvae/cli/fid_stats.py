"""`hvae fid-stats`: what images are compared with, measured once and kept."""

from pathlib import Path
from typing import Annotated

import typer

from hvae.cli.fid_options import (
    Batch,
    Download,
    Features,
    PartName,
    Protocol,
    Size,
    SkipBad,
    Weights,
    part_of_set,
)
from hvae.cli.options import Json, Seed
from hvae.cli.output import check_writable, print_result, table, writing
from hvae.cli.sides import Reading, SetSide, open_side
from hvae.cli.together import speaking_as_one
from hvae.errors import UserError


def fid_stats(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            show_default=False,
            help="A folder of images, the name of an embedded set, or a .npz file.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE.safetensors", show_default=False, help="Where to."
        ),
    ],
    num_images: Annotated[
        int | None,
        typer.Option("--num", "-n", min=2, show_default="all", help="Images; --seed chooses them."),
    ] = None,
    features: Features = "inception",
    weights: Weights = None,
    download: Download = False,
    protocol: Protocol = None,
    split: Annotated[
        PartName | None,
        typer.Option(show_default="test where there is one, else all", help="Which images."),
    ] = None,
    size: Size = None,
    skip_bad: SkipBad = False,
    batch: Batch = 64,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Keep mean and covariance of a set's features, for hvae fid --real FILE.

    The file says which images, network and protocol it is of, and is refused with others.
    """
    from hvae.cli.measuring import Measuring, open_network
    from hvae.metrics.reference import save_reference
    from hvae.training.distributed import joined

    if out.suffix != ".safetensors":
        raise UserError(f"--out: wanted a .safetensors file, got {out}")
    with joined() as world, speaking_as_one(world):
        with world.agreed():
            check_writable(out)
        extractor = open_network(features, protocol, weights, world, download=download)
        with world.agreed():
            reading = Reading(seed=seed, size=size, skip_bad=skip_bad)
            side = open_side(data, part_of_set(split), num_images, reading)
            if not isinstance(side, SetSide):
                raise UserError(f"{data}: wanted images, such as a folder of them")
        measuring = Measuring(extractor, world, batch)
        reference, _ = measuring.reference(side.images, side.record(), side.images.rows)
        with world.agreed():
            if world.first:
                with writing(out):
                    out.parent.mkdir(parents=True, exist_ok=True)
                    save_reference(reference, out)
        if world.first:
            facts = {**reference.provenance, "n": str(reference.count)}
            print_result({"out": str(out), **facts}, f"{out}\n\n{table(facts)}", as_json=json)
