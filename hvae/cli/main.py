"""The `hvae` command: its verbs, and how errors become exit codes.

Exit codes: 0 done; 1 failed; 2 wrong use; 75 stopped by a signal after saving, run again to go on;
130 interrupted.
"""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hvae import __version__
from hvae.cli.bench import bench
from hvae.cli.config import config
from hvae.cli.data import data
from hvae.cli.evaluate import evaluate
from hvae.cli.fid import fid
from hvae.cli.fid_stats import fid_stats
from hvae.cli.info import info
from hvae.cli.output import example, fail, plain_warnings
from hvae.cli.plot import plot
from hvae.cli.reconstruct import reconstruct
from hvae.cli.refine import refine
from hvae.cli.sample import sample
from hvae.cli.train import train
from hvae.cli.vdvae import export_vdvae, import_vdvae
from hvae.errors import HvaeError

# Wherever this version of typer keeps it: some bring their own click.
_UsageError: Any = typer.BadParameter.__base__


class _Group(TyperGroup):
    """Verbs whose expected errors end as one line and an exit code; others keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            verb = error.ctx or ctx
            if error.ctx is not None and isinstance(verb.command, TyperGroup):
                raise  # a verb that is missing or unknown: all of them are shown
            message = error.format_message().rstrip(".")
            raise fail(f"{message}; see {verb.command_path} --help", 2) from None
        except HvaeError as error:
            raise fail(str(error), error.exit_code) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


app = typer.Typer(
    cls=_Group,
    callback=_options,
    help="Hierarchical variational autoencoders: train, score and use them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.command(
    epilog=example(
        "hvae train configs/fashion_mini.yaml train.lr=2e-4\n"
        "torchrun --nproc-per-node=8 -m hvae train configs/fashion_mini.yaml\n"
        "hvae train configs/own_images_256.yaml --smoke\n"
        "hvae train configs/own_images_256.yaml --plan train.memory_gib=8\n"
        "hvae train configs/own_images_256.yaml data.source=~/photos"
    )
)(train)
app.command(
    epilog=example(
        "hvae refine runs/fashion-mini\n"
        "hvae refine runs/a refine.images=200000\n"
        "hvae refine runs/a refine.discriminator.features=lite2"
    )
)(refine)
app.command(epilog=example("hvae sample runs/fashion-mini -n 64 -o samples.png"))(sample)
app.command(epilog=example("hvae reconstruct runs/fashion-mini -n 16 -o pairs.png"))(reconstruct)
app.command(epilog=example("hvae plot runs/a runs/b -o curves.png\nhvae plot runs/a --json"))(plot)
app.command("eval", epilog=example("hvae eval runs/fashion-mini --importance 16"))(evaluate)
app.command(
    epilog=example(
        "hvae fid runs/fashion-mini --features lite0 -n 5000 --temperature 0.7,0.85,1.0\n"
        "hvae fid samples/ --real photos/ --metrics fid,kid,prdc --size 256\n"
        "torchrun --nproc-per-node=8 -m hvae fid runs/big --real reference.safetensors"
    )
)(fid)
app.command(
    "fid-stats", epilog=example("hvae fid-stats photos/ --size 256 -o reference.safetensors")
)(fid_stats)
app.command(epilog=example("hvae config fashion_mini train.lr=2e-4\nhvae config --list"))(config)
app.command(epilog=example("hvae info"))(info)
app.command(
    epilog=example(
        "hvae bench kernels --save before.json\nhvae bench kernels --compare before.json"
    )
)(bench)
app.command(
    "import-vdvae",
    epilog=example("hvae import-vdvae cifar10-seed0-model-ema.th -o runs/cifar10 --preset cifar10"),
)(import_vdvae)
app.command("export-vdvae", epilog=example("hvae export-vdvae runs/cifar10 -o cifar10.th"))(
    export_vdvae
)
app.add_typer(data, name="data")


def main() -> None:
    """Runs the command line and exits."""
    plain_warnings()
    app(prog_name="hvae")
