"""`hvae sample`: new images from a trained run."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvae.cli.options import Cond, Json, Refined, Run, Seed
from hvae.cli.output import print_result, progress, writing
from hvae.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from hvae.cli.condition import Told
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
        Output, typer.Option(help="Unrefined: a draw from the likelihood, or its mean.")
    ] = Output.SAMPLE,
    cond: Cond = None,
    guidance: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Weight of the condition: 0 is the unconditional model, 1 the conditional one, "
            "more exaggerates.",
        ),
    ] = 1.0,
    guidance_std: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            show_default="that of --guidance",
            help="Its weight for standard deviations.",
        ),
    ] = None,
    refined: Refined = None,
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

    from hvae.cli.condition import read_condition
    from hvae.cli.run import open_model, weights_record

    model, weights = open_model(run, refined=refined)
    told = read_condition(cond, model, weights)
    pull = (guidance, guidance if guidance_std is None else guidance_std)
    images = _draw(
        model,
        num_images,
        temperature,
        output.value,
        told=told,
        guidance=pull,
        seed=seed,
        first_index=first_index,
    )
    with writing(out):
        _save(images, out, told.columns)
    record = {
        "out": str(out),
        "num_images": num_images,
        "temperature": temperature,
        "output": output.value,
        "refined": model.refiner is not None,
        "cond": cond,
        "guidance": list(pull),
        "seed": seed,
        "first_index": first_index,
        **weights_record(weights),
    }
    print_result(record, f"{out}: {num_images} images", as_json=json)


def _draw(
    model: "HVAE",
    count: int,
    temperature: float,
    output: str,
    *,
    told: "Told",
    guidance: tuple[float, float],
    seed: int,
    first_index: int,
) -> "Tensor":
    import torch

    batches = []
    with progress("samples", count) as update:
        for start in range(0, count, BATCH):
            size = min(BATCH, count - start)
            images = model.sample(
                size,
                temperature=temperature,
                output=output,
                cond=told.rows(first_index + start, size),
                guidance=guidance,
                seed=seed,
                first_index=first_index + start,
            )
            batches.append(images.cpu())
            update(start + len(images))
    return torch.cat(batches)


def _save(images: "Tensor", out: Path, columns: int | None) -> None:
    if out.suffix == ".png":
        from hvae.data import save_grid

        save_grid(images, out, columns)
        return
    import numpy as np

    out.parent.mkdir(parents=True, exist_ok=True)
    np.save(out, images.numpy())
