"""Where the values of a configuration come from: a YAML file and the `key=value`s after it.

OmegaConf reads the values: it takes `2e-4` for a float and refuses duplicate keys, where plain
PyYAML does neither. It forgets positions, so each source is composed a second time, into YAML nodes
that know their lines.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hvae.errors import UserError

Keys = tuple[str | int, ...]

_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]*)")


@dataclass(frozen=True)
class Source:
    """Values from one place, and the YAML nodes they were read from."""

    name: str
    """The file, or the text of the override."""

    values: dict[Any, Any]
    """With `${...}` not yet resolved."""

    root: yaml.Node | None
    has_lines: bool

    def depth(self, keys: Keys) -> int:
        """Returns how many of the leading keys this source names."""
        return len(self._nodes(keys))

    def where(self, keys: Keys) -> str:
        """Returns `file:line` of the deepest of the keys that the file names, or the override."""
        found = self._nodes(keys)
        return self.at(found[-1][0]) if found else self.name

    def quoted(self, keys: Keys) -> str:
        """Returns a scalar as it would have to be written to be read as text."""
        found = self._nodes(keys)
        value = found[-1][1] if len(found) == len(keys) else None
        # A value that came through a YAML merge key (`<<`) is written elsewhere.
        scalar = f'"{value.value}"' if isinstance(value, yaml.ScalarNode) else '"..."'
        return scalar if self.has_lines else f"'{self.name.partition('=')[0]}={scalar}'"

    def at(self, node: yaml.Node) -> str:
        """Returns `file:line` of a node, or the override."""
        return f"{self.name}:{node.start_mark.line + 1}" if self.has_lines else self.name

    def _nodes(self, keys: Keys) -> list[tuple[yaml.Node, yaml.Node]]:
        """(the node that names a key, its value) for each leading key that is there."""
        found: list[tuple[yaml.Node, yaml.Node]] = []
        node = self.root
        for key in keys:
            entry = _entry(node, key)
            if entry is None:
                break
            found.append(entry)
            node = entry[1]
        return found


def read_file(path: Path) -> Source:
    """Returns the values of a YAML file.

    Raises:
        UserError: the file cannot be read, or is not one YAML mapping of unambiguous values.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"cannot read {path}: {reason}") from None
    try:
        values = OmegaConf.create(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(_yaml_problem(str(path), error)) from None
    # OmegaConf reads the lone word `x` as `{x: null}`.
    if not isinstance(values, DictConfig) or isinstance(root, yaml.ScalarNode):
        raise UserError(f"{path}: wanted a mapping of keys to values, such as `seed: 0`")
    source = Source(str(path), _plain(values), root, has_lines=True)
    _refuse_ambiguous_numbers(source)
    return source


def read_override(text: str) -> Source:
    """Returns the value of one `key=value`, `key` dotted and `value` in YAML.

    Raises:
        UserError: the text has another form.
    """
    key, equals, value = text.partition("=")
    names = key.split(".")
    if not equals or not all(names):
        raise UserError(f'"{text}": wanted key=value, such as train.lr=2e-4')
    try:
        tree: Any = _plain(OmegaConf.from_dotlist([f"value={value}"]))["value"]
        node = yaml.compose(value, Loader=yaml.SafeLoader) or yaml.ScalarNode("", "")
    except (yaml.YAMLError, OmegaConfBaseException):
        raise UserError(f"{text}: the value is not YAML; quote it: '{key}=\"...\"'") from None
    for name in reversed(names):
        # Keys of mappings such as model.widths are numbers.
        tree = {int(name) if name.isdecimal() else name: tree}
        node = yaml.MappingNode("", [(yaml.ScalarNode("", name), node)])
    source = Source(text, tree, node, has_lines=False)
    _refuse_ambiguous_numbers(source)
    return source


def merge(sources: list[Source]) -> dict[str, Any]:
    """Returns the values of all sources, later ones first, with `${...}` resolved.

    Raises:
        UserError: a reference leads nowhere, or a value is still `???`.
    """
    # Not by OmegaConf.merge, which cannot put a list in the place of a mapping: validation then
    # says what was wanted there.
    merged = functools.reduce(_merged, (source.values for source in sources))
    try:
        values = _plain(OmegaConf.create(merged), resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(_yaml_problem(sources[0].name, error)) from None
    return {str(key): value for key, value in values.items()}


def _merged(base: Any, other: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(other, dict)):
        return other
    return {**base, **{key: _merged(base.get(key), value) for key, value in other.items()}}


def _plain(config: Any, *, resolve: bool = False) -> dict[Any, Any]:
    values = OmegaConf.to_container(config, resolve=resolve, throw_on_missing=resolve)
    assert isinstance(values, dict)
    return values


def _entry(node: yaml.Node | None, key: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            if key_node.value == str(key):
                return key_node, value_node
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key]
    return None


def _yaml_problem(name: str, error: Exception) -> str:
    """One line about an error of PyYAML or OmegaConf."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{name}:{error.problem_mark.line + 1}: {error.problem}"
    return f"{name}: {str(error).splitlines()[0]}"


def _refuse_ambiguous_numbers(source: Source) -> None:
    """YAML 1.1 reads 010 as 8 and 12:30 as 750, which nobody means."""
    for node in _scalars(source.root):
        octal = node.tag == _INT and not _DECIMAL.fullmatch(node.value)
        sexagesimal = node.tag == _FLOAT and ":" in node.value
        if node.style is None and (octal or sexagesimal):
            number = yaml.safe_load(node.value)
            raise UserError(
                f"{source.at(node)}: {node.value} is read as {number}; write {number} or quote it"
            )


def _scalars(node: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _scalars(item)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _scalars(key)
            yield from _scalars(value)
