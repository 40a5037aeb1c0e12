"""Words a mistake in a configuration as one line: where, what was wanted, what came, what to do."""

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hvae.training.config_source import Keys, Source

# By pydantic's error type, filled from its context; other types keep pydantic's own words.
_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a section of keys",
    "literal_error": "{expected}",
    "finite_number": "a finite number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "at most {le}",
    "missing": "an entry",
    "too_short": "at least {min_length} entries",
    "too_long": "a list of at most {max_length}",
    "string_pattern_mismatch": "text that matches {pattern}",
}


def explain(error: ValidationError, model: type[BaseModel], sources: Sequence[Source]) -> str:
    """Returns the first mistake as one line, unknown keys before all others.

    A misspelt key that is required makes two mistakes, and only the unknown one says what to do.

    Args:
        error: what `model.model_validate` raised.
        model: the root section.
        sources: the file first, then the overrides in the order they were given.
    """
    mistakes = sorted(error.errors(include_url=False), key=lambda m: m["type"] != "extra_forbidden")
    first = mistakes[0]
    keys = _field_keys(model, first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{_where(sources, keys)}: {_unknown(model, keys)}"
    if first["type"] == "missing" and first["loc"] == keys:
        return f"{sources[0].where(keys)}: {_dotted(keys)} is missing"
    return _wrong_value(_most_specific(mistakes, model, keys), keys, sources)


def _field_keys(model: type[BaseModel], loc: Keys) -> Keys:
    """The part of pydantic's location that names fields; the rest names union members and items."""
    keys: list[str | int] = []
    section: type[BaseModel] | None = model
    for part in loc:
        if section is None:
            break
        keys.append(part)
        section = _sections(section).get(str(part))
    return tuple(keys)


def _sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    return {
        name: field.annotation
        for name, field in model.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def _all_keys(model: type[BaseModel], parent: Keys = ()) -> Iterator[Keys]:
    for name in model.model_fields:
        yield (*parent, name)
    for name, section in _sections(model).items():
        yield from _all_keys(section, (*parent, name))


def _unknown(model: type[BaseModel], keys: Keys) -> str:
    """Offers a near name of the same section, and the same name in another one."""
    *parent, name = keys
    known = list(_all_keys(model))
    siblings = [str(key[-1]) for key in known if list(key[:-1]) == parent]
    near = [(*parent, match) for match in difflib.get_close_matches(str(name), siblings, n=1)]
    near += [key for key in known if key[-1] == name]
    if near:
        return f"unknown key {_dotted(keys)}; did you mean {' or '.join(map(_dotted, near))}?"
    return f"unknown key {_dotted(keys)}; known here: {', '.join(siblings)}"


def _most_specific(
    mistakes: list[ErrorDetails], model: type[BaseModel], keys: Keys
) -> list[ErrorDetails]:
    """Of a union's mistakes those of the members that fit best, which pydantic follows deepest."""
    same = [m for m in mistakes if _field_keys(model, m["loc"]) == keys]
    deepest = max(len(m["loc"]) for m in same)
    return [m for m in same if len(m["loc"]) == deepest]


def _wrong_value(mistakes: list[ErrorDetails], keys: Keys, sources: Sequence[Source]) -> str:
    first = mistakes[0]
    items = tuple(part for part in first["loc"][len(keys) :] if isinstance(part, int))
    where = _where(sources, (*keys, *items))
    if first["type"] == "value_error":
        subject = f"{_dotted(keys)}: " if keys else ""
        return f"{where}: {subject}{first['ctx']['error']}"
    wanted = " or ".join(dict.fromkeys(_wanted(m) for m in mistakes))
    got = _shown(first["input"])
    return f"{where}: {_dotted(keys, items)}: wanted {wanted}, got {got}{_cure(first, sources)}"


def _wanted(mistake: ErrorDetails) -> str:
    template = _WANTED.get(mistake["type"])
    if template is None:
        return mistake["msg"].removeprefix("Input should be ")
    return template.format(**mistake.get("ctx", {}))


def _cure(mistake: ErrorDetails, sources: Sequence[Source]) -> str:
    """YAML reads `on` as true, `123` as a number and `1e5` as a float; says how to prevent that."""
    value = mistake["input"]
    if mistake["type"] == "string_type" and isinstance(value, bool | int | float):
        return f"; quote it: {_source(sources, mistake['loc']).quoted(mistake['loc'])}"
    if mistake["type"] == "int_type" and isinstance(value, float) and value.is_integer():
        return f"; write {int(value)}"
    return ""


def _source(sources: Sequence[Source], keys: Keys) -> Source:
    """The source that decided a value: the last of those that name most of its keys."""
    last = max(reversed(sources), key=lambda source: source.depth(keys))
    return last if last.depth(keys) else sources[0]


def _where(sources: Sequence[Source], keys: Keys) -> str:
    return _source(sources, keys).where(keys)


def _dotted(keys: Sequence[str | int], items: Sequence[int] = ()) -> str:
    return '"' + ".".join(map(str, keys)) + "".join(f"[{item}]" for item in items) + '"'


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)
