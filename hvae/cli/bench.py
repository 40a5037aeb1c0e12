"""`hvae bench`: speed and memory on this machine."""

from dataclasses import asdict
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


def bench(
    what: Annotated[
        What,
        typer.Argument(
            show_default="kernels",
            help="kernels: each fused op against eager torch and torch.compile. "
            "step: a training step of the two presets.",
        ),
    ] = What.KERNELS,
    dtype: Annotated[
        str, typer.Option(help="Of the kernels' inputs: float32 or bfloat16.")
    ] = "float32",
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
    """Measure the kernels or a training step on one CPU thread.

    Figures are thread CPU time, medians over interleaved rounds with their 20th and 80th
    percentile. An op that fails its check against the reference is not measured.
    """
    import json as json_format

    import torch

    from hvae import checkpoint
    from hvae.bench import kernels, report, training_step
    from hvae.bench.measure import one_thread

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in dtypes:
        raise UserError(f"--dtype: wanted float32 or bfloat16, got {dtype}")
    before = None if compare is None else report.medians(checkpoint.read_json(compare))
    if what is What.KERNELS:
        comparisons = []
        try:
            for comparison in kernels.run((dtypes[dtype],), rounds):
                note(f"measured {comparison.case}")
                comparisons.append(comparison)
        except AssertionError as error:
            raise HvaeError(f"no figures: {error}") from None
        figures, table = [asdict(c) for c in comparisons], report.markdown(comparisons)
    else:
        steps = training_step.run(rounds)
        figures, table = [asdict(s) for s in steps], training_step.markdown(steps)
    with one_thread():
        machine = report.machine()
    record = {"machine": machine, "comparisons": figures}
    text = f"{report.headline(machine)}\n\n{table}"
    if before is not None:
        text += f"\n\n{report.changes(before, report.medians(record))}"
    if save is not None:
        with writing(save):
            save.write_text(json_format.dumps(record, indent=1) + "\n")
    print_result(record, text, as_json=json)
