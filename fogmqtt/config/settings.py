"""Settings: one value each, where it was said, and whether there is such a key at all."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from fogmqtt.config import values
from fogmqtt.config.schema import DeviceConfig, GatewayConfig, SchedulerSettings
from fogmqtt.config.text import read_yaml
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.errors import ConfigError

PREFIX = "FOGMQTT_"

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
_PATHS: tuple[Key, ...] = (
    ("broker", "password_file"),
    ("broker", "ca"),
    ("broker", "cert"),
    ("broker", "key"),
    ("gateway", "inbox"),
    ("gateway", "outbox"),
    ("gateway", "spool"),
    ("models",),
)
#: Lists of modules; what ends with .py is a path.
_MODULES: Key = ("plugins",)
PASSWORD: Key = ("broker", "password")
PASSWORD_FILE: Key = ("broker", "password_file")


@dataclass(frozen=True, slots=True)
class Setting:
    value: Any
    #: How an error names it: `config.yaml: broker.url` or the variable.
    origin: str
    #: What a relative path is relative to.
    folder: Path


Settings = dict[Key, Setting]


def gather(schema: type, path: Path | None, environ: Mapping[str, str]) -> Settings:
    keys = dict(_keys(schema))
    settings: Settings = {}
    if path is not None:
        settings = dict(_from_file(read_yaml(path), keys, str(path), path.parent))
        if all(key in settings and settings[key].value for key in (PASSWORD, PASSWORD_FILE)):
            raise ConfigError(
                f"{path}: broker.password and broker.password_file are both set; leave one out"
            )
    settings = _overlay(settings, dict(_from_environment(environ, keys)))
    return settings | _resolved(settings, keys, Path() if path is None else path.parent)


def _overlay(below: Settings, above: Settings) -> Settings:
    """`above` wins; either way to say the password replaces the other."""
    if PASSWORD in above or PASSWORD_FILE in above:
        below = {key: below[key] for key in below if key not in (PASSWORD, PASSWORD_FILE)}
    return below | above


def _resolved(settings: Settings, keys: Mapping[Key, Any], folder: Path) -> Settings:
    """The paths, defaults too, as seen from the folder that they are relative to."""
    resolved = {}
    for key in _PATHS:
        if key not in keys:
            continue
        setting = settings.get(key) or Setting(_default(key), ".".join(key), folder)
        seen = str(setting.folder / setting.value) if setting.value else ""
        resolved[key] = dataclasses.replace(setting, value=seen)
    if _MODULES in settings:
        modules = settings[_MODULES]
        seen_as = tuple(_seen(module, modules.folder) for module in modules.value)
        resolved[_MODULES] = dataclasses.replace(modules, value=seen_as)
    return resolved


def _seen(module: str, folder: Path) -> str:
    return str((folder / module).absolute()) if module.endswith(".py") else module


def _default(key: Key) -> Any:
    value: Any = GatewayConfig()
    for name in key:
        value = getattr(value, name)
    return value


def _keys(schema: type, above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every key of the schema and its type; `*` stands for any name."""
    for name, hint in get_type_hints(schema, include_extras=True).items():
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _keys(hint, (*above, name))
        elif get_origin(hint) is dict:
            yield (*above, name, "*"), get_args(hint)[1]
        else:
            yield (*above, name), hint


def _find(keys: Mapping[Key, Any], key: Key) -> Any:
    """The type of a key, None where there is no such key."""
    return keys.get(key) or keys.get((*key[:-1], "*"))


def _from_file(
    section: object, keys: Mapping[Key, Any], file: str, folder: Path, above: Key = ()
) -> Iterator[tuple[Key, Setting]]:
    if section is None:  # a section with all its keys commented out
        return
    if not isinstance(section, dict):
        at = f"{file}: {'.'.join(above)}" if above else file
        raise ConfigError(f"{at}: expected keys with values, got {values.shown(section)}")
    for name, value in section.items():
        key = (*above, str(name))
        origin = f"{file}: {'.'.join(key)}"
        hint = _find(keys, key)
        if hint is not None:
            yield key, Setting(values.convert(value, hint, origin, key), origin, folder)
        elif _is_section(keys, key):
            yield from _from_file(value, keys, file, folder, key)
        elif key in _REMOVED:
            raise ConfigError(f"{origin} was removed: {_CHOSEN}; delete the line")
        else:
            raise ConfigError(f"{origin}: unknown key; {_nearest(key, keys)}")


def _from_environment(
    environ: Mapping[str, str], keys: Mapping[Key, Any]
) -> Iterator[tuple[Key, Setting]]:
    everything = dict(_keys(GatewayConfig)) | dict(_keys(DeviceConfig))
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX):
            continue
        key = tuple(variable.removeprefix(PREFIX).lower().split("__"))
        if key in _REMOVED:
            raise ConfigError(f"{variable} was removed: {_CHOSEN}; unset the variable")
        if _find(everything, key) is None:
            raise ConfigError(f"{variable}: no such setting; {_nearest_variable(key, everything)}")
        hint = _find(keys, key)
        if hint is not None:  # else it is the other program's, which may share our environment
            value = values.convert_text(text, hint, variable, key)
            yield key, Setting(value, variable, Path())


def _is_section(keys: Mapping[Key, Any], key: Key) -> bool:
    return any(known[: len(key)] == key for known in keys)


def _nearest(key: Key, keys: Mapping[Key, Any]) -> str:
    if key in _DECIDED_BY:
        return f"{'.'.join(_DECIDED_BY[key])} decides it"
    above = key[:-1]
    siblings = {known[len(above)] for known in keys if known[: len(above)] == above} - {"*"}
    for name in difflib.get_close_matches(key[-1], sorted(siblings), 1):
        return f"did you mean {'.'.join((*above, name))}?"
    for known in keys:
        if known[-1] == key[-1]:
            return f"did you mean {'.'.join(known)}?"
    return f"here may stand: {', '.join(sorted(siblings))}"


def _nearest_variable(key: Key, keys: Mapping[Key, Any]) -> str:
    if key in _DECIDED_BY:
        return f"{_variable(_DECIDED_BY[key])} decides it"
    known = {"__".join(one).replace("*", "name"): _variable(one) for one in keys}
    for near in difflib.get_close_matches("__".join(key), sorted(known), 1):
        return f"did you mean {known[near]}?"
    return f"{PREFIX}BROKER__URL is broker.url, and so on"


def _variable(key: Key) -> str:
    return (PREFIX + "__".join(key)).upper().replace("*", "NAME")


def origin_of(settings: Settings, *key: str) -> str:
    """How an error names a key: where it was set, or where it would be."""
    return settings[key].origin if key in settings else ".".join(key)
