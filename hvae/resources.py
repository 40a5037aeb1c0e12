"""Files that ship with the package but are no code."""

from __future__ import annotations

from pathlib import Path

from hvae.errors import UserError


def config_dir() -> Path:
    """The folder of the shipped `*.yaml` configurations.

    A wheel carries them inside the package; a clone, installed editable or not, has them at its
    top.

    Raises:
        UserError: neither place has the folder.
    """
    package = Path(__file__).parent
    places = (package / "configs", package.parent / "configs")
    for folder in places:
        if folder.is_dir():
            return folder
    raise UserError(
        f"the shipped configurations are missing: looked in {places[0]} and {places[1]}; "
        "reinstall hvae"
    )
