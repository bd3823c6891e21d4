"""YAML text to plain values: the only place that knows YAML, and the file it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fogmqtt.errors import ConfigError

_MAX_BYTES = 1_000_000


class _Loader(yaml.SafeLoader):
    """Plain YAML: no aliases, which can expand without bound, no tags, no key twice."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if any(getattr(event, name, None) for name in ("anchor", "tag")):
            raise yaml.composer.ComposerError(
                None, None, "aliases, anchors and tags are refused", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for name, _ in node.value:
            if str(name.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name.value!r} is there twice", name.start_mark
                )
            seen.add(str(name.value))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> object:
    """What the file says. Raises ConfigError naming file, line and column."""
    try:
        return _parse(_read_text(path))
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        at = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{at}: {problem.problem}") from None
    except yaml.YAMLError as problem:
        raise ConfigError(f"{path}: {' '.join(str(problem).split())}") from None
    except ValueError as problem:  # a date or figure that Python cannot hold
        raise ConfigError(f"{path}: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deep") from None


def scalar(text: str) -> object:
    """What YAML makes of a short text; the text itself where it is no YAML."""
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
        raise ConfigError(f"{path}: over {_MAX_BYTES} bytes; this is no configuration file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
