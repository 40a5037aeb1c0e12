"""`hvae config`: what a configuration file says, spelt out and checked."""

import json
from typing import Annotated

import typer

from hvae.cli.options import Overrides
from hvae.errors import UserError


def config(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="[CONFIG]",
            show_default=False,
            help="A YAML file, or the name of a shipped one.",
        ),
    ] = None,
    overrides: Overrides = None,
    list_shipped: Annotated[
        bool, typer.Option("--list", help="List the shipped configurations.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema, for editors.")
    ] = False,
) -> None:
    """Check a configuration and print every key of it."""
    from hvae.training import config_file

    if schema:
        typer.echo(json.dumps(config_file.config_schema(), indent=2))
    elif list_shipped:
        for name, headline in config_file.list_configs():
            typer.echo(f"{name:<20} {headline}")
    elif config is None:
        raise UserError("wanted a CONFIG, --list or --schema")
    else:
        typer.echo(
            config_file.config_yaml(config_file.load_config(config, overrides or ())), nl=False
        )
