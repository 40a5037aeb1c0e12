"""`hvae fid`: how far generated images are from real ones."""

import math
from typing import Annotated

import typer

from hvae.cli.candidates import SAMPLES, Made, check_sides, check_use
from hvae.cli.comparison import Comparison, in_words
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
from hvae.cli.options import Cond, Json, Refined, Seed
from hvae.cli.output import note, print_result
from hvae.cli.sample import Output
from hvae.cli.sides import Reading, open_side
from hvae.cli.together import speaking_as_one
from hvae.errors import UserError


def fid(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            show_default=False,
            help="What is scored: a run, a checkpoint, DATA (a folder of images, an embedded set, "
            "a .npz file), or a file of statistics.",
        ),
    ],
    real: Annotated[
        str | None,
        typer.Option(
            metavar="B",
            show_default="the run's own data",
            help="What it is compared with: the same kinds.",
        ),
    ] = None,
    num_images: Annotated[
        int | None,
        typer.Option(
            "--num",
            "-n",
            min=2,
            show_default=f"{SAMPLES:,} samples of a run, all images of a set",
            help="Images of A; --seed chooses those of a set.",
        ),
    ] = None,
    num_real: Annotated[
        int | None, typer.Option(min=2, show_default="all", help="Images of B.")
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            help="Among fid, kid, prdc (precision, recall, density, coverage) and sharpness "
            "(spectrum, gradients), with commas between them."
        ),
    ] = "fid",
    features: Features = "inception",
    weights: Weights = None,
    download: Download = False,
    protocol: Protocol = None,
    temperature: Annotated[
        str,
        typer.Option(help="Of a run's latents; several with commas between them are all scored."),
    ] = "1.0",
    output: Annotated[
        Output, typer.Option(help="Of a run: a draw from the likelihood, or its mean.")
    ] = Output.SAMPLE,
    cond: Cond = None,
    guidance: Annotated[float, typer.Option(min=0.0, help="Weight of the condition.")] = 1.0,
    reconstructions: Annotated[
        bool,
        typer.Option(
            "--reconstructions",
            help="Score the run's reconstructions of B instead of its samples (rFID), with their "
            "PSNR and SSIM.",
        ),
    ] = False,
    infinity: Annotated[
        bool, typer.Option("--infinity", help="Also extrapolate the distance to endless samples.")
    ] = False,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamples of A for intervals; 0 gives none.")
    ] = 0,
    split: Annotated[
        PartName | None,
        typer.Option(show_default="test where B has one, else all", help="Which images of B."),
    ] = None,
    a_split: Annotated[
        PartName | None,
        typer.Option(show_default="test where A has one, else all", help="Which images of A."),
    ] = None,
    refined: Refined = None,
    size: Size = None,
    skip_bad: SkipBad = False,
    batch: Batch = 64,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Score images against real ones: FID and its relatives.

    The number is the same, to the last digit, for every batch size and number of processes
    (torchrun -m hvae fid ...), and its record says all that it depends on. Nothing is written.
    """
    from hvae.cli.measuring import Measuring, open_network
    from hvae.metrics.score import Scoring
    from hvae.training.distributed import joined

    if not math.isfinite(guidance):
        raise UserError(f"--guidance: wanted a number, got {guidance}")
    names = tuple(name.strip() for name in metrics.split(","))
    reading = Reading(seed=seed, size=size, skip_bad=skip_bad, refined=refined)
    made = Made(
        count=num_images or SAMPLES,
        temperatures=_temperatures(temperature),
        output=output.value,
        cond=cond,
        guidance=guidance,
        seed=seed,
        reconstructions=reconstructions,
    )
    with joined() as world, speaking_as_one(world):
        extractor = open_network(features, protocol, weights, world, download=download)
        with world.agreed():
            scoring = Scoring(
                names,
                extractor.frechet_name,
                extractor.kernel_name,
                infinity=infinity,
                resamples=bootstrap,
                seed=seed,
            )
            fake = open_side(a, part_of_set(a_split), num_images, reading)
            against = open_side(real, part_of_set(split), num_real, reading, like=fake)
            check_sides(fake, against, names, made)
            check_use(fake, against, made, size=size, num_images=num_images)
        measuring = Measuring(extractor, world, batch, sharpness="sharpness" in names)
        record = Comparison(fake, against, made, num_real).results(measuring, scoring)
        if world.first:
            for warning in record["warnings"]:
                note(f"warning: {warning}")
            print_result(record, in_words(record), as_json=json)


def _temperatures(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(value) for value in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 <= value < float("inf") for value in values):
        raise UserError(f"--temperature: wanted numbers such as 0.7,1.0, got {text}")
    return values
