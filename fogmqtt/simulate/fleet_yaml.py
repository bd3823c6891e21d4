"""Reads plain YAML values into frozen dataclasses, strictly, with errors that name the key."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from fogmqtt.config import values
from fogmqtt.errors import ConfigError

T = TypeVar("T")

#: YAML 1.1 reads 5e6 as text: it wants 5.0e+6.
_FIGURE = re.compile(r"[0-9][0-9_]*(\.[0-9]*)?[eE][+-]?[0-9]+")


class YamlSection:
    """A mapping of a file, and its position there. Raises ConfigError if it is none."""

    def __init__(self, file: str, section: object, key: str = "") -> None:
        self.file = file
        self.key = key
        if not isinstance(section, dict):
            raise ConfigError(
                f"{self.at()}: expected keys with values, got {values.describe(section)}"
            )
        self.values: dict[str, Any] = {str(name): value for name, value in section.items()}

    def at(self, name: str = "") -> str:
        """The name of a key of this section in error messages."""
        key = ".".join(part for part in (self.key, name) if part)
        return f"{self.file}: {key}" if key else self.file

    def get(self, name: str, default: object = None) -> Any:
        value = self.values.get(name)
        return default if value is None else value

    def only(self, *names: str) -> None:
        """Raise ConfigError for any other key."""
        for name in self.values:
            if name not in names:
                raise ConfigError(f"{self.at(name)}: unknown key; {nearest(name, names)}")

    def below(self, name: str, value: object) -> YamlSection:
        return YamlSection(self.file, value, f"{self.key}.{name}" if self.key else name)


def nearest(name: str, known: Iterable[str]) -> str:
    """The most similar name, or else all names."""
    names = sorted(known)
    for near in difflib.get_close_matches(name, names, 1):
        return f"did you mean {near}?"
    return f"there are {', '.join(names)}"


def read(section: YamlSection, schema: type[T]) -> T:
    """A value of the dataclass `schema`, whose type hints define what each key may be.

    Raises ConfigError for an unknown key, a missing one and a value that is not allowed.
    """
    hints = get_type_hints(schema, include_extras=True)
    section.only(*hints)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(schema):  # type: ignore[arg-type]  # T is a dataclass
        if section.values.get(field.name) is not None:
            given[field.name] = _value(section, field.name, hints[field.name])
        elif _is_needed(field):
            raise ConfigError(f"{section.at(field.name)}: is missing")
    return schema(**given)


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(section: YamlSection, name: str, hint: Any) -> Any:
    value = section.values[name]
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return read(section.below(name, value), hint)
    if get_origin(hint) is tuple and get_args(hint)[-1] is ...:
        return tuple(_items(section, name, get_args(hint)[0]))
    return _plain(section, name, value, hint)


def _items(section: YamlSection, name: str, kind: Any) -> Iterable[Any]:
    found = section.values[name]
    if not isinstance(found, list):
        raise ConfigError(f"{section.at(name)}: expected a list, got {values.describe(found)}")
    for index, value in enumerate(found):
        key = f"{name}[{index}]"
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield read(section.below(key, value), kind)
        else:
            yield _plain(section, key, value, kind)


def _plain(section: YamlSection, name: str, value: object, hint: Any) -> Any:
    if hint is not str and isinstance(value, str) and _FIGURE.fullmatch(value):
        value = float(value)
    return values.convert(value, hint, section.at(name), (section.key, name))
