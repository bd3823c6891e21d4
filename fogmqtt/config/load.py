"""Builds a checked configuration from settings."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from fogmqtt.config.schema import BrokerSettings, DeviceConfig, GatewayConfig
from fogmqtt.config.settings import PASSWORD_FILE, Key, Settings, gather_settings, origin_of
from fogmqtt.core.geometry import parse_tile_plan
from fogmqtt.errors import ConfigError, UsageError
from fogmqtt.images.result_format import parse_result_format
from fogmqtt.wire.topics import LOCAL, Topics, check_id

_Config = TypeVar("_Config", GatewayConfig, DeviceConfig)


def load_gateway(path: Path | None, environ: Mapping[str, str]) -> GatewayConfig:
    """Return the gateway's configuration from a file, if a path is given, and the environment.

    Raises ConfigError, which names the file or variable, the key, and the expected value.
    """
    settings = gather_settings(GatewayConfig, path, environ)
    config = _assemble(GatewayConfig, settings)
    check_id(config.gateway.id, origin_of(settings, "gateway", "id"))
    for name in config.pipelines:
        check_id(name, origin_of(settings, "pipelines", name))
    for name in config.priorities:
        _check_pipeline_exists(name, config.pipelines, origin_of(settings, "priorities", name))
    _check(
        origin_of(settings, "gateway", "format"),
        "gateway.format",
        parse_result_format,
        config.gateway.format,
    )
    for name, text in config.formats.items():
        origin = origin_of(settings, "formats", name)
        _check_pipeline_exists(name, config.pipelines, origin)
        _check(origin, f"formats.{name}", parse_result_format, text)
    _check(origin_of(settings, "tiles"), "tiles", parse_tile_plan, config.tiles)
    _check_plugins(config.plugins, origin_of(settings, "plugins"))
    return config


def load_device(path: Path | None, environ: Mapping[str, str]) -> DeviceConfig:
    """Return the device's configuration from a file, if a path is given, and the environment.

    Raises ConfigError, which names the file or variable, the key, and the expected value.
    """
    settings = gather_settings(DeviceConfig, path, environ)
    config = _assemble(DeviceConfig, settings)
    origin = origin_of(settings, "device", "id")
    if config.device.id and check_id(config.device.id, origin) == LOCAL:
        raise ConfigError(
            f"{origin}: {LOCAL!r} is the gateway's own id; give the device another id"
        )
    return config


def _assemble(schema: type[_Config], settings: Settings) -> _Config:
    config: _Config = _build(schema, settings)
    _check(origin_of(settings, "wire", "prefix"), "wire.prefix", Topics, config.wire.prefix)
    return dataclasses.replace(config, broker=_checked_broker(config.broker, settings))


def _build(schema: Any, settings: Settings, parent: Key = ()) -> Any:
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(schema).items():
        key = (*parent, name)
        if dataclasses.is_dataclass(hint):
            values[name] = _build(hint, settings, key)
        elif get_origin(hint) is dict:
            named = {each[-1]: settings[each].value for each in settings if each[:-1] == key}
            values[name] = getattr(schema(), name) | named
        elif key in settings:
            values[name] = settings[key].value
    return schema(**values)


def _checked_broker(broker: BrokerSettings, settings: Settings) -> BrokerSettings:
    if bool(broker.cert) != bool(broker.key):
        given, missing = ("cert", "key") if broker.cert else ("key", "cert")
        origin = origin_of(settings, "broker", given)
        raise ConfigError(f"{origin}: broker.{missing} is missing; give both or none")
    if broker.password_file:
        return dataclasses.replace(broker, password=_read_password(broker, settings))
    return broker


def _read_password(broker: BrokerSettings, settings: Settings) -> str:
    origin = origin_of(settings, *PASSWORD_FILE)
    try:
        return Path(broker.password_file).read_text("utf-8").rstrip("\r\n")
    except OSError as problem:
        raise ConfigError(f"{origin}: {broker.password_file}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{origin}: {broker.password_file} is not UTF-8 text") from None


def _check_pipeline_exists(name: str, pipelines: Iterable[str], origin: str) -> None:
    if name in pipelines:
        return
    known = sorted(pipelines)
    matches = difflib.get_close_matches(name, known, 1)
    suggestion = f"did you mean {matches[0]}?" if matches else f"there are: {', '.join(known)}"
    raise ConfigError(f"{origin}: no pipeline {name!r} is configured; {suggestion}")


def _check_plugins(modules: Iterable[str], origin: str) -> None:
    for module in modules:
        if module.endswith(".py"):
            if not Path(module).is_file():
                raise ConfigError(
                    f"{origin}: there is no file {module}; give a path relative to the folder of "
                    "the configuration, or the name of an installed module without .py"
                )
        elif not _is_installed(module):
            raise ConfigError(
                f"{origin}: no module {module!r} is installed here; install its package into "
                f"{sys.prefix}, or give the path of a .py file"
            )


def _is_installed(module: str) -> bool:
    """Return whether Python finds a module. A faulty package counts; its import shows the fault."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
    except Exception:  # noqa: BLE001  # a foreign package may raise anything
        return True


def _check(origin: str, key: str, check: Callable[[str], object], value: str) -> None:
    """Run a check of another module. Its error gets the origin in place of the key."""
    try:
        check(value)
    except UsageError as problem:
        raise ConfigError(f"{origin}: {str(problem).removeprefix(f'{key}: ')}") from None
