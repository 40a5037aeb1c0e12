"""`hvae train`: a configuration becomes a run folder."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hvae.cli.options import Json, Overrides
from hvae.cli.output import note, print_result, table

if TYPE_CHECKING:
    from hvae.training import FitResult

# EX_TEMPFAIL of sysexits.h: what schedulers take for "run it again".
STOPPED = 75


def train(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            show_default=False,
            help="A YAML file, or the name of a shipped one (hvae config --list).",
        ),
    ],
    overrides: Overrides = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Train nothing; print parameters, memory, what is recomputed, arithmetic, and "
            "images/s from a few steps on noise.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Train a model, or go on with a run that was stopped.

    The same command again resumes at the last checkpoint. Ctrl-C and SIGTERM save one and end with
    exit code 75. Training that diverges goes back to its last good state; where that does not
    help, it ends with exit code 1 and a message that names the module and the step.
    """
    from hvae.training import fit, load_config

    if plan:
        from hvae.training.plan import make_plan

        found = make_plan(load_config(config, overrides or ()))
        print_result(found.record(), table(found.rows()), as_json=json)
        return
    result = fit(load_config(config, overrides or ()))
    print_result({**asdict(result), "run": str(result.run)}, _text(result), as_json=json)
    if result.rollbacks:
        times = "once" if result.rollbacks == 1 else f"{result.rollbacks} times"
        log = result.run / "metrics.jsonl"
        note(f"training diverged and was rolled back {times}; see the rows of kind alarm in {log}")
    if result.stopped:
        note(f"stopped and saved in {result.run}; run the same command again to go on")
        raise typer.Exit(STOPPED)


def _text(result: "FitResult") -> str:
    if result.stopped or result.bits_per_dim is None:
        return f"{result.run}: {result.images} images"
    return (
        f"{result.split} bits/dim: {result.bits_per_dim:.3f} "
        f"(ELBO, {result.dataset} {result.split}, {result.num_images} images)"
    )
