"""Arguments and options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        show_default=False,
        help="A run folder (its newest complete checkpoint), RUN/best (the one that scored best, "
        "where train.keep_best is on), a checkpoint folder, or a .safetensors file beside its "
        "config.json.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        show_default=False,
        help="Values that replace those of the file, such as train.lr=2e-4.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        show_default="the run's own",
        help="Another set: the name of an embedded one, a folder of images, or a .npz file.",
    ),
]
Cond = Annotated[
    str | None,
    typer.Option(
        "--cond",
        metavar="KIND=VALUE",
        show_default="none",
        help="What a conditional model is told: class=NAME, class=all (image i gets class i modulo "
        "their number, a column each), vector=0.5,-1, image=FILE, or data=test for what the run's "
        "data says of each image.",
    ),
]
Refined = Annotated[
    bool | None,
    typer.Option(
        "--refined/--unrefined",
        show_default="refined if hvae refine has been run",
        help="Images as the refiner makes them, or as the likelihood model alone does.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of the noise.")]
