"""Reads YAML files into plain values. Only this module uses YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fogmqtt.errors import ConfigError

_MAX_BYTES = 1_000_000


class _Loader(yaml.SafeLoader):
    """Plain YAML without aliases (they can expand without bound), tags and repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if any(getattr(event, name, None) for name in ("anchor", "tag")):
            raise yaml.composer.ComposerError(
                None, None, "aliases, anchors and tags are not allowed", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for name, _ in node.value:
            if str(name.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {name.value!r} is repeated", name.start_mark
                )
            seen.add(str(name.value))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> object:
    """Return the content of a file. Raises ConfigError, which names file, line and column."""
    try:
        return _parse(_read_text(path))
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        at = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{at}: {problem.problem}") from None
    except yaml.YAMLError as problem:
        raise ConfigError(f"{path}: {' '.join(str(problem).split())}") from None
    except ValueError as problem:  # a date or number that Python cannot represent
        raise ConfigError(f"{path}: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None


def scalar(text: str) -> object:
    """Return a short text parsed as YAML, or the text itself if it is not valid YAML."""
    try:
        return _parse(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def _parse(text: str) -> object:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as problem:
        raise ConfigError(f"{path}: {problem.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{path}: over {_MAX_BYTES} bytes, so it is not a configuration file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
