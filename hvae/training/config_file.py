"""Configuration files: from a YAML file and `key=value`s to a checked `Config`, and back."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import ValidationError

from hvae.errors import UserError
from hvae.resources import config_dir
from hvae.training.config import Config
from hvae.training.config_errors import explain
from hvae.training.config_source import Source, merge, read_file, read_override


def load_config(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Returns the configuration in a YAML file, with overrides applied in their order.

    Args:
        path_or_name: a file, or the name of a shipped configuration (see `list_configs`).
        overrides: `key=value`, the key dotted and the value in YAML, such as `train.lr=2e-4`.

    Raises:
        UserError: one line that says where the mistake is, what was wanted and what came.
    """
    path = _find(path_or_name)
    return _checked(path.stem.replace("_", "-"), read_file(path), overrides)


def make_config(name: str, values: dict[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Returns the configuration of a run `name` in nested values, with overrides applied.

    Raises:
        UserError: as `load_config`.
    """
    return _checked(name, Source(name, values, None, has_lines=False), overrides)


def _checked(name: str, base: Source, overrides: Sequence[str]) -> Config:
    sources = [base, *(read_override(text) for text in overrides)]
    values = {"name": name, **merge(sources)}
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(error, Config, sources)) from None


def config_yaml(config: Config) -> str:
    """Returns the configuration with every key spelt out; `load_config` reads it back unchanged."""
    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump()))


def config_schema() -> dict[str, Any]:
    """Returns the JSON Schema of configuration files, for editors that complete and check keys."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(),
        "title": "hvae configuration",
    }


def list_configs() -> list[tuple[str, str]]:
    """Returns (name, first comment line) of each shipped configuration, by name."""
    return [(name, _first_comment(path)) for name, path in _shipped().items()]


def _shipped() -> dict[str, Path]:
    """The shipped files by name: the path below their folder, without the suffix."""
    folder = config_dir()
    files = sorted(folder.rglob("*.yaml"))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def _first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line.lstrip("# ") for line in lines if line.startswith("#")), "")


def _find(path_or_name: str | Path) -> Path:
    """A file of that name wins over a shipped configuration."""
    path = Path(path_or_name)
    if path.is_file():
        return path
    shipped = _shipped()
    name = str(path_or_name).replace("-", "_")
    if name in shipped:
        return shipped[name]
    raise UserError(_not_found(path, list(shipped)))


def _not_found(path: Path, shipped: list[str]) -> str:
    siblings = [str(file) for file in sorted(path.parent.glob("*.yaml"))] if path.suffix else []
    near = difflib.get_close_matches(str(path), siblings, n=1)
    near += difflib.get_close_matches(str(path.with_suffix("")).replace("-", "_"), shipped, n=1)
    advice = f"did you mean {near[0]}?" if near else f"shipped: {', '.join(shipped) or 'none'}"
    what = "is a folder, wanted a YAML file" if path.is_dir() else "no such configuration"
    return f"{path}: {what}; {advice}"
