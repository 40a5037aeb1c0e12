"""`hvae reconstruct`: held-out images beside what a trained run makes of them."""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hvae.cli.options import Data, Json, Refined, Run, Seed
from hvae.cli.output import print_result, writing
from hvae.errors import UserError


class Mode(StrEnum):
    """What is taken from the posterior."""

    SAMPLE = "sample"
    MEAN = "mean"


def reconstruct(
    run: Run,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            show_default=False,
            help="A .png sheet: each original, and its reconstruction to the right of it.",
        ),
    ],
    num_images: Annotated[
        int, typer.Option("-n", min=1, help="How many images, the first of the test split.")
    ] = 16,
    data: Data = None,
    groups: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="all",
            help="Latent groups kept, coarsest first; the others come from the prior.",
        ),
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="A draw from the posterior, or its mean.")
    ] = Mode.SAMPLE,
    refined: Refined = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Show test images beside their reconstructions."""
    if out.suffix != ".png":
        raise UserError(f"--out: wanted a .png file, got {out}")

    import torch

    from hvae import inference
    from hvae.cli.condition import conditions_of
    from hvae.cli.run import open_data, open_model, weights_record
    from hvae.data import save_grid

    model, weights = open_model(run, refined=refined)
    source = open_data(weights, model, data, "test")
    originals = torch.stack([source[i] for i in range(min(num_images, len(source)))])
    cond = conditions_of(model, source, originals, 0)
    images = inference.reconstruct(
        model, originals, groups=groups, mode=mode.value, seed=seed, cond=cond
    )
    pairs = torch.stack([originals, images.cpu()], 1).flatten(0, 1)
    with writing(out):
        save_grid(pairs, out, columns=_columns(len(originals)))
    record = {
        "out": str(out),
        "num_images": len(originals),
        "dataset": source.name,
        "split": source.split,
        "groups": model.num_groups if groups is None else groups,
        "mode": mode.value,
        "refined": model.refiner is not None,
        "seed": seed,
        **weights_record(weights),
    }
    text = f"{out}: {len(originals)} images of {source.name} {source.split} and reconstructions"
    print_result(record, text, as_json=json)


def _columns(num_pairs: int) -> int:
    """An even number, so that no pair is torn apart, for a sheet that is about square."""
    return 2 * max(1, round(math.sqrt(num_pairs / 2)))
