"""Collects settings from a YAML file and the environment, each with its origin for errors."""

from __future__ import annotations

import dataclasses
import difflib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from fogmqtt.config import values
from fogmqtt.config.schema import DeviceConfig, GatewayConfig, SchedulerSettings
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.errors import ConfigError

log = logging.getLogger(__name__)

PREFIX = "FOGMQTT_"

#: The path of a key: `("broker", "url")` is `broker.url`.
Key = tuple[str, ...]

#: Keys of older versions that another key decides.
_DECIDED_BY: dict[Key, Key] = {("scheduler", "starve_s"): ("gateway", "local_after")}
#: Keys of older versions that are constants now.
_REMOVED = frozenset(
    ("scheduler", field.name)
    for field in dataclasses.fields(Policy)
    if not hasattr(SchedulerSettings(), field.name) and field.name != "starve_s"
)
_CHOSEN = "fogmqtt chooses it itself"
_PATH_KEYS: tuple[Key, ...] = (
    ("broker", "password_file"),
    ("broker", "ca"),
    ("broker", "cert"),
    ("broker", "key"),
    ("gateway", "inbox"),
    ("gateway", "outbox"),
    ("gateway", "spool"),
    ("callback", "secret_file"),
    ("callback", "ca"),
    ("dashboard", "token_file"),
    ("dashboard", "viewer_token_file"),
    ("joining", "folder"),
    ("models",),
)
#: The same of each stream. A source is a path unless it is a URL or a word with a colon.
_STREAM_PATHS = ("password_file", "source")
#: Where each stream is recorded.
_RECORDINGS = ("record", "folder")
#: The sections with such keys.
_WITH_SOURCES = ("streams", "camera")
#: A list of modules. An entry that ends with .py is a path.
_MODULES_KEY: Key = ("plugins",)
PASSWORD: Key = ("broker", "password")
PASSWORD_FILE: Key = ("broker", "password_file")


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of a key."""

    value: Any
    #: Where it was set, for errors: `config.yaml: broker.url` or the name of the variable.
    origin: str
    #: The folder to which a relative path is relative.
    folder: Path


Settings = dict[Key, Setting]


def gather_settings(schema: type, path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Return the settings of the file and the environment for the keys of a schema class.

    Raises ConfigError for an unknown key, a wrong value, or an unreadable file.
    """
    keys = dict(_schema_keys(schema))
    settings: Settings = {}
    if path is not None:
        from fogmqtt.config.text import read_yaml  # YAML is slow to load

        settings = dict(_from_file(read_yaml(path), keys, str(path), path.parent))
        if all(key in settings and settings[key].value for key in (PASSWORD, PASSWORD_FILE)):
            raise ConfigError(
                f"{path}: broker.password and broker.password_file are both set; leave one out"
            )
    settings = _merge(settings, dict(_from_environment(environ, keys)))
    return settings | _resolve_paths(settings, keys, Path() if path is None else path.parent)


def _merge(lower: Settings, upper: Settings) -> Settings:
    """Override `lower` with `upper`. A password replaces a password file and vice versa."""
    if PASSWORD in upper or PASSWORD_FILE in upper:
        lower = {key: lower[key] for key in lower if key not in (PASSWORD, PASSWORD_FILE)}
    return lower | upper


def _resolve_paths(settings: Settings, keys: Mapping[Key, Any], folder: Path) -> Settings:
    """Return all paths, defaults included, joined to the folder to which they are relative."""
    resolved = {}
    for key in _PATH_KEYS:
        if key not in keys:
            continue
        setting = settings.get(key) or Setting(_default(key), ".".join(key), folder)
        path = str(setting.folder / setting.value) if setting.value else ""
        resolved[key] = dataclasses.replace(setting, value=path)
    for key, setting in settings.items():
        if _is_stream_path(key, setting.value):
            path = str(setting.folder / setting.value)
            resolved[key] = dataclasses.replace(setting, value=path)
        elif key[0] == "streams" and key[-1] == "output":
            places = tuple(_absolute_place(word, setting.folder) for word in setting.value)
            resolved[key] = dataclasses.replace(setting, value=places)
    if _MODULES_KEY in settings:
        modules = settings[_MODULES_KEY]
        paths = tuple(_absolute_module(module, modules.folder) for module in modules.value)
        resolved[_MODULES_KEY] = dataclasses.replace(modules, value=paths)
    return resolved


def _is_stream_path(key: Key, value: Any) -> bool:
    """Whether the value of a key is one path of a stream or camera."""
    if key[0] not in _WITH_SOURCES:
        return False
    if key[-2:] == _RECORDINGS:
        return bool(value)
    return key[-1] in _STREAM_PATHS and _is_path(value)


def _is_path(text: str) -> bool:
    """Whether a source of frames names a file or folder."""
    kind, colon, _ = text.partition(":")
    return bool(text) and text != "mqtt" and not (colon and kind.isalnum())


def _absolute_place(word: str, folder: Path) -> str:
    """Return the word of an output, with the path after its colon joined to the folder."""
    kind, colon, path = word.partition(":")
    return f"{kind}:{folder / path}" if colon and path else word


def _absolute_module(module: str, folder: Path) -> str:
    return str((folder / module).absolute()) if module.endswith(".py") else module


def _default(key: Key) -> Any:
    value: Any = GatewayConfig()
    for name in key:
        value = getattr(value, name)
    return value


def _schema_keys(schema: type, parent: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Yield every key of the schema with its type. `*` stands for any name."""
    for name, hint in get_type_hints(schema, include_extras=True).items():
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _schema_keys(hint, (*parent, name))
        elif get_origin(hint) is dict and dataclasses.is_dataclass(get_args(hint)[1]):
            yield from _schema_keys(get_args(hint)[1], (*parent, name, "*"))
        elif get_origin(hint) is dict:
            yield (*parent, name, "*"), get_args(hint)[1]
        else:
            yield (*parent, name), hint


def _type_of(keys: Mapping[Key, Any], key: Key) -> Any:
    """Return the type of a key, or None for an unknown key."""
    return keys.get(key) or keys.get(_pattern(keys, key))


def _pattern(keys: Mapping[Key, Any], key: Key) -> Key:
    """Return a key with `*` where the schema has any name."""
    pattern: Key = ()
    for name in key:
        level = (*pattern, name)
        is_known = any(known[: len(level)] == level for known in keys)
        pattern = level if is_known else (*pattern, "*")
    return pattern


def _from_file(
    section: object, keys: Mapping[Key, Any], file: str, folder: Path, parent: Key = ()
) -> Iterator[tuple[Key, Setting]]:
    if section is None:  # a section with all its keys commented out
        return
    if not isinstance(section, dict):
        at = f"{file}: {'.'.join(parent)}" if parent else file
        got = values.shown(section, parent)
        raise ConfigError(f"{at}: expected keys with values, got {got}")
    for name, value in section.items():
        key = (*parent, str(name))
        origin = f"{file}: {'.'.join(key)}"
        hint = _type_of(keys, key)
        if hint is not None:
            yield key, Setting(values.convert(value, hint, origin, key), origin, folder)
        elif _is_section(keys, key):
            yield from _from_file(value, keys, file, folder, key)
        elif key in _REMOVED:
            raise ConfigError(f"{origin} was removed: {_CHOSEN}; delete the line")
        else:
            raise ConfigError(f"{origin}: unknown key; {_suggestion(key, keys)}")


def _from_environment(
    environ: Mapping[str, str], keys: Mapping[Key, Any]
) -> Iterator[tuple[Key, Setting]]:
    all_keys = dict(_schema_keys(GatewayConfig)) | dict(_schema_keys(DeviceConfig))
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX):
            continue
        key = tuple(variable.removeprefix(PREFIX).lower().split("__"))
        if key in _REMOVED:
            raise ConfigError(f"{variable} was removed: {_CHOSEN}; unset the variable")
        if _is_of_other_version(key, all_keys):
            log.warning("%s is ignored: this version has no settings of %r", variable, key[0])
            continue
        if _type_of(all_keys, key) is None:
            raise ConfigError(f"{variable}: no such setting; {_suggested_variable(key, all_keys)}")
        hint = _type_of(keys, key)
        if hint is not None:  # otherwise it is for the other program in the same environment
            value = values.convert_text(text, hint, variable, key)
            yield key, Setting(value, variable, Path())


def _is_of_other_version(key: Key, keys: Mapping[Key, Any]) -> bool:
    """Whether a variable names a section that resembles none of this version.

    Several versions may share one environment, so such a variable is no error. A file is.
    """
    sections = {known[0] for known in keys if len(known) > 1}
    return len(key) > 1 and not difflib.get_close_matches(key[0], sections, 1)


def _is_section(keys: Mapping[Key, Any], key: Key) -> bool:
    pattern = _pattern(keys, key)
    return any(known[: len(key)] == pattern for known in keys)


def _suggestion(key: Key, keys: Mapping[Key, Any]) -> str:
    if key in _DECIDED_BY:
        return f"set {'.'.join(_DECIDED_BY[key])}, which decides it"
    parent = _pattern(keys, key[:-1])
    siblings = {known[len(parent)] for known in keys if known[: len(parent)] == parent} - {"*"}
    for name in difflib.get_close_matches(key[-1], sorted(siblings), 1):
        return f"did you mean {'.'.join((*key[:-1], name))}?"
    for known in keys:
        if known[-1] == key[-1]:
            return f"did you mean {'.'.join(known).replace('*', 'NAME')}?"
    return f"the keys here are: {', '.join(sorted(siblings))}"


def _suggested_variable(key: Key, keys: Mapping[Key, Any]) -> str:
    if key in _DECIDED_BY:
        return f"set {_variable(_DECIDED_BY[key])}, which decides it"
    known = {"__".join(each).replace("*", "name"): _variable(each) for each in keys}
    for match in difflib.get_close_matches("__".join(key), sorted(known), 1):
        return f"did you mean {known[match]}?"
    return f"name it like {PREFIX}BROKER__URL, which is broker.url"


def _variable(key: Key) -> str:
    return (PREFIX + "__".join(key)).upper().replace("*", "NAME")


def origin_of(settings: Settings, *key: str) -> str:
    """Return where a key was set, for errors, or the key itself if it was not set."""
    return settings[key].origin if key in settings else ".".join(key)
