"""`hvae train`: a configuration becomes a run folder, by one process or several."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hvae.cli.options import Json, Overrides
from hvae.cli.output import note, print_result, table
from hvae.cli.plot import leave_curves
from hvae.cli.smoke import run_smoke
from hvae.cli.together import speaking_as_one

if TYPE_CHECKING:
    from hvae.training import Config, FitResult

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
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="Only try it: two steps on generated images of the true size, one at a time, in a "
            "folder that is removed (kept with name=...). Needs no data.",
        ),
    ] = False,
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

    The same command again resumes at the newest complete checkpoint. Ctrl-C and SIGTERM save one
    and end with exit code 75. train.keep_best=true also keeps the one that scored best, for every
    verb as RUN/best. Training that diverges goes back to its last good state; where that does not
    help, it ends with exit code 1 and a message that names the module and the step.

    Under torchrun every process trains on a part of each batch; data.batch counts all of them.
    """
    from hvae.training import fit, load_config
    from hvae.training.distributed import joined

    with joined() as world, speaking_as_one(world):
        with world.agreed():
            settings = load_config(config, overrides or ())
        if smoke or plan:
            if world.first:
                named = any(text.startswith("name=") for text in overrides or ())
                _try(settings, plan=plan, keep=named, json=json)
            return
        result = fit(settings, world=world)
        if world.first:
            _tell(result, json)
        if result.stopped:
            raise typer.Exit(STOPPED)


def _try(settings: "Config", *, plan: bool, keep: bool, json: bool) -> None:
    """Says what the run would take, or takes two steps of it."""
    if not plan:
        run_smoke(settings, keep=keep, json=json)
        return
    from hvae.training.plan import make_plan

    found = make_plan(settings)
    print_result(found.record(), table(found.rows()), as_json=json)


def _tell(result: "FitResult", json: bool) -> None:
    if not result.stopped:
        leave_curves(result.run)
    print_result({**asdict(result), "run": str(result.run)}, _text(result), as_json=json)
    if result.rollbacks:
        times = "once" if result.rollbacks == 1 else f"{result.rollbacks} times"
        log = result.run / "metrics.jsonl"
        note(f"training diverged and was rolled back {times}; see the rows of kind alarm in {log}")
    if result.stopped:
        note(f"stopped and saved in {result.run}; run the same command again to go on")


def _text(result: "FitResult") -> str:
    if result.stopped or result.bits_per_dim is None:
        return f"{result.run}: {result.images} images"
    return (
        f"{result.split} bits/dim: {result.bits_per_dim:.3f} "
        f"(ELBO, {result.dataset} {result.split}, {result.num_images} images)"
    )
