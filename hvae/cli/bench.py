"""`hvae bench`: speed and memory on this machine."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hvae.cli.options import Json
from hvae.cli.output import note, print_result, writing
from hvae.errors import HvaeError, UserError


class What(StrEnum):
    """What can be measured."""

    KERNELS = "kernels"
    STEP = "step"
    SAMPLING = "sampling"


def bench(
    what: Annotated[
        What,
        typer.Argument(
            show_default="kernels",
            help="kernels: each fused op against eager torch and torch.compile. "
            "step: a training step of the two presets. "
            "sampling: images drawn from them, with and without the kernels.",
        ),
    ] = What.KERNELS,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[OP:]NxCxHxW",
            show_default="one of each op; more on CUDA",
            help="For kernels: batch, channels, height and width; may be repeated. "
            "OP is gaussian_latent, where it is left out (C latent channels), "
            "logistic_mixture_nll or logistic_mixture_sample (C = 1 or 3 colours). "
            "Ops without a shape are then left out.",
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            show_default="float32", help="For kernels: float32, bfloat16 or float16 inputs."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(show_default="cuda if there is one with kernels", help="cpu or cuda."),
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compiled", help="For step: also under torch.compile, which takes minutes at first."
        ),
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved measurements.")] = 15,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", show_default=False, help="Keep the record."),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="OLD.json", show_default=False, help="A saved record to stand beside this one."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Measure the kernels, a training step or sampling.

    Figures are medians over interleaved rounds, ratios with their 20th and 80th percentile: thread
    CPU time of one thread on a CPU; on CUDA device time by events with a cold cache for kernels,
    wall time for the others. An op that fails its check against the reference is not measured.
    """
    import json as json_format

    from hvae.bench import kernels, report, sampling, training_step
    from hvae.bench.case import DTYPES
    from hvae.bench.device import choose_device, kernel_meter, model_meter
    from hvae.bench.record import Record, Row

    if what is not What.KERNELS and (shape or dtype):
        raise UserError(f"--shape and --dtype are for kernels; {what} has its own")
    if what is not What.STEP and compiled:
        raise UserError(f"--compiled is for step, got {what}")
    if dtype not in (None, *DTYPES):
        raise UserError(f"--dtype: wanted {', '.join(DTYPES)}; got {dtype}")
    shapes = kernels.parse_shapes(shape or ())
    before = None if compare is None else Record.read(compare)
    if before is not None:
        report.check_comparable(before, what)
    device = choose_device(device)
    meter = kernel_meter(device) if what is What.KERNELS else model_meter(device)
    rows: list[Row] = []
    if what is What.KERNELS:
        dtypes = [DTYPES[dtype or "float32"]]
        try:
            for row in kernels.run(meter, dtypes, shapes or kernels.default_shapes(device), rounds):
                note(f"measured {row.case}")
                rows.append(row)
        except AssertionError as error:
            raise HvaeError(f"no figures: {error}") from None
    elif what is What.STEP:
        variants = training_step.variant_names(compiled=compiled)
        rows += training_step.run(meter, rounds, variants)
    else:
        rows += sampling.run(meter, rounds)
    record = Record.of(what, rows, meter)
    text = report.text(record, before)
    if save is not None:
        with writing(save):
            save.write_text(json_format.dumps(record.as_json(), indent=1) + "\n")
    print_result(record.as_json(), text, as_json=json)
