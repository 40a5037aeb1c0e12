"""`hvae sample`: new images from a trained run."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvae.cli.options import Json, Run, Seed
from hvae.cli.output import print_result, progress, writing
from hvae.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from hvae.models import HVAE

# Images between two updates of the progress; the model cuts them further.
BATCH = 64


class Output(StrEnum):
    """What is shown of the likelihood."""

    SAMPLE = "sample"
    MEAN = "mean"


def sample(
    run: Run,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            show_default=False,
            help="A .png sheet, or a .npy file of uint8 [n, C, H, W].",
        ),
    ],
    num_images: Annotated[int, typer.Option("-n", min=1, help="How many images.")] = 64,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Scale of the latents' standard deviations.")
    ] = 1.0,
    output: Annotated[
        Output, typer.Option(help="A draw from the likelihood, or its mean.")
    ] = Output.SAMPLE,
    seed: Seed = 0,
    first_index: Annotated[
        int,
        typer.Option(min=0, help="Index of the first; image i of a seed never changes."),
    ] = 0,
    json: Json = False,
) -> None:
    """Draw images from a trained model."""
    if out.suffix not in (".png", ".npy"):
        raise UserError(f"--out: wanted a .png or .npy file, got {out}")

    from hvae.cli.run import open_model, weights_record

    images = _draw(
        open_model(run), num_images, temperature, output.value, seed=seed, first_index=first_index
    )
    with writing(out):
        _save(images, out)
    record = {
        "out": str(out),
        "num_images": num_images,
        "temperature": temperature,
        "output": output.value,
        "seed": seed,
        "first_index": first_index,
        **weights_record(run),
    }
    print_result(record, f"{out}: {num_images} images", as_json=json)


def _draw(
    model: "HVAE", count: int, temperature: float, output: str, *, seed: int, first_index: int
) -> "Tensor":
    import torch

    batches = []
    with progress("samples", count) as update:
        for start in range(0, count, BATCH):
            images = model.sample(
                min(BATCH, count - start),
                temperature=temperature,
                output=output,
                seed=seed,
                first_index=first_index + start,
            )
            batches.append(images.cpu())
            update(start + len(images))
    return torch.cat(batches)


def _save(images: "Tensor", out: Path) -> None:
    if out.suffix == ".png":
        from hvae.data import save_grid

        save_grid(images, out)
        return
    import numpy as np

    out.parent.mkdir(parents=True, exist_ok=True)
    np.save(out, images.numpy())
