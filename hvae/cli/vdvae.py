"""`hvae import-vdvae` and `hvae export-vdvae`: checkpoints of the published VDVAE."""

from pathlib import Path
from typing import Annotated

import typer

from hvae.cli.options import Json, Overrides, Run
from hvae.cli.output import note, print_result
from hvae.errors import UserError


def import_vdvae(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            show_default=False,
            help="A published file such as *-model-ema.th, or its tensors as .safetensors.",
        ),
    ],
    run: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="RUN", help="The run folder to write."),
    ],
    overrides: Overrides = None,
    preset: Annotated[
        str | None,
        typer.Option(
            show_default="the one that fits",
            help="The published model: cifar10, imagenet32, imagenet64, ffhq256 or ffhq1024.",
        ),
    ] = None,
    layout: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="ENCODER DECODER",
            show_default=False,
            help="The layout strings of another model of that family.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", show_default=False, help="The images it is scored on."),
    ] = None,
    json: Json = False,
) -> None:
    """Turn a checkpoint of the published VDVAE into a run folder for every other verb.

    Widths, latent channels, mixtures, block counts and starting maps are read off the tensors;
    block resolutions, bit depth and scaling of the data come from the preset or the layout, and
    where the two disagree nothing is written.
    """
    from hvae.training import vdvae

    if preset is not None and layout is not None:
        raise UserError("wanted --preset or --layout, got both")
    values = [*(overrides or ()), *([f'data.source="{data}"'] if data else [])]
    tensors = vdvae.read_published(checkpoint)
    if layout is None:
        config = vdvae.preset_config(tensors, preset, values)
    else:
        config = vdvae.layout_config(tensors, *layout, values)
        scaling = config.model.likelihood
        if not any(text.startswith("model.likelihood.input_") for text in values):
            note(
                "hvae: the scaling of the data cannot be read off a checkpoint; assuming mean "
                f"{scaling.input_mean} and std {scaling.input_std} (model.likelihood.input_mean, "
                "model.likelihood.input_std)"
            )
    model = vdvae.import_vdvae(tensors, config, run)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    record = {
        "run": str(run),
        "checkpoint": str(checkpoint),
        "parameters": parameters,
        "tensors": len(tensors),
        "groups": model.num_groups,
        "shape": list(model.shape),
        "bits": config.model.likelihood.bits,
    }
    shape = "x".join(map(str, model.shape))
    text = f"{run}: {parameters:,} parameters, {model.num_groups} latent groups, {shape} images"
    print_result(record, text, as_json=json)


def export_vdvae(
    run: Run,
    checkpoint: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="CHECKPOINT", help="The file to write: .th or .safetensors."
        ),
    ],
    json: Json = False,
) -> None:
    """Write a run's averaged weights under the published VDVAE's names.

    For models of that family: preset vdvae, or the same activation and std.
    """
    from hvae.cli.run import open_model
    from hvae.training import vdvae

    model, _ = open_model(run)
    tensors = vdvae.export_vdvae(model.cpu(), checkpoint)
    numbers = sum(tensor.numel() for tensor in tensors.values())
    record = {"checkpoint": str(checkpoint), "run": str(run), "tensors": len(tensors)}
    print_result(record, f"{checkpoint}: {len(tensors)} tensors, {numbers:,} numbers", as_json=json)
