"""Builds a checked configuration from settings."""

from __future__ import annotations

import dataclasses
import difflib
import errno
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from fogmqtt.config.addresses import check_header, check_host, parse_listen, parse_networks
from fogmqtt.config.schema import (
    BrokerSettings,
    DashboardSettings,
    DeviceConfig,
    GatewayConfig,
    StreamSettings,
)
from fogmqtt.config.settings import PASSWORD_FILE, Key, Settings, gather_settings, origin_of
from fogmqtt.core.geometry import parse_tile_plan
from fogmqtt.core.streaming.zones import parse_polygon
from fogmqtt.errors import ConfigError, UsageError, reason_of
from fogmqtt.images.result_format import parse_result_format
from fogmqtt.wire.topics import LOCAL, Topics, check_id, check_topic

#: The name of a shared subscription, which nobody must guess.
_GROUP = re.compile(r"[A-Za-z0-9_-]{12,64}")

_Config = TypeVar("_Config", GatewayConfig, DeviceConfig)


def load_gateway(path: Path | None, environ: Mapping[str, str]) -> GatewayConfig:
    """Return the gateway's configuration from a file, if a path is given, and the environment.

    Raises ConfigError, which names the file or variable, the key, and the expected value.
    """
    settings = gather_settings(GatewayConfig, path, environ)
    config = _assemble(GatewayConfig, settings)
    check_id(config.gateway.id, origin_of(settings, "gateway", "id"))
    _check_group(config, origin_of(settings, "gateway", "group"))
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
    for name in config.deliveries:
        _check_pipeline_exists(name, config.pipelines, origin_of(settings, "deliveries", name))
    for name in config.callbacks:
        check_id(name, origin_of(settings, "callbacks", name))
    _check(origin_of(settings, "tiles"), "tiles", parse_tile_plan, config.tiles)
    _check_plugins(config.plugins, origin_of(settings, "plugins"))
    _check_dashboard(config.dashboard, settings)
    _check(
        origin_of(settings, "joining", "listen"),
        "joining.listen",
        partial(parse_listen, key="joining.listen"),
        config.joining.listen,
    )
    for key, topic in (
        ("prefix", config.homeassistant.prefix),
        ("status", config.homeassistant.status),
    ):
        check_topic(topic, origin_of(settings, "homeassistant", key))
    for name, stream in config.streams.items():
        _check_stream(name, stream, settings)
    return config


def load_device(path: Path | None, environ: Mapping[str, str]) -> DeviceConfig:
    """Return the device's configuration from a file, if a path is given, and the environment.

    Raises ConfigError, which names the file or variable, the key, and the expected value.
    """
    return load_device_and_broker(path, environ)[0]


def load_device_and_broker(
    path: Path | None, environ: Mapping[str, str]
) -> tuple[DeviceConfig, bool]:
    """As `load_device`; return also whether somebody has set broker.url."""
    settings = gather_settings(DeviceConfig, path, environ)
    config = _assemble(DeviceConfig, settings)
    origin = origin_of(settings, "device", "id")
    if config.device.id and check_id(config.device.id, origin) == LOCAL:
        raise ConfigError(
            f"{origin}: {LOCAL!r} is the gateway's own id; give the device another id"
        )
    return config, ("broker", "url") in settings


def _check_group(config: GatewayConfig, origin: str) -> None:
    group = config.gateway.group
    if group and _GROUP.fullmatch(group) is None:
        raise ConfigError(
            f"{origin}: use 12 to 64 letters, digits, _ and - that nobody guesses "
            f"(it has {len(group)} characters, which are not shown)"
        )
    if group and config.broker.protocol != 5:
        raise ConfigError(
            f"{origin}: gateways share submissions on MQTT 5 only; set broker.protocol to 5"
        )


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
            values[name] = getattr(schema(), name) | _named(get_args(hint)[1], settings, key)
        elif key in settings:
            values[name] = settings[key].value
    return schema(**values)


def _named(hint: Any, settings: Settings, key: Key) -> dict[str, Any]:
    """Return the values below a key whose names are the user's."""
    if not dataclasses.is_dataclass(hint):
        return {each[-1]: settings[each].value for each in settings if each[:-1] == key}
    names = dict.fromkeys(each[len(key)] for each in settings if each[: len(key)] == key)
    return {name: _build(hint, settings, (*key, name)) for name in names}


def _check_stream(name: str, stream: StreamSettings, settings: Settings) -> None:
    """Check what needs no camera and no operators. Raises ConfigError."""
    key = ("streams", name)
    check_id(name, f"streams.{name}")
    if not stream.source:
        raise ConfigError(
            f"streams.{name}: source is missing; name a camera or a file, such as "
            "source: rtsp://camera.local/h264"
        )
    if stream.retry_max_s < stream.retry_s:
        raise ConfigError(
            f"{origin_of(settings, *key, 'retry_max_s')}: {stream.retry_max_s:g} is less than "
            f"retry_s, which is {stream.retry_s:g}"
        )
    origin = origin_of(settings, *key, "format")
    _check(origin, f"streams.{name}.format", parse_result_format, stream.format)
    for part, zones in (("zones", stream.events.zones), ("exclude", stream.events.exclude)):
        for zone, polygon in zones.items():
            path = (*key, "events", part, zone)
            _check(origin_of(settings, *path), ".".join(path), parse_polygon, polygon)
    if stream.password_file:
        _read_password(stream.password_file, origin_of(settings, *key, "password_file"))


def _checked_broker(broker: BrokerSettings, settings: Settings) -> BrokerSettings:
    if bool(broker.cert) != bool(broker.key):
        given, missing = ("cert", "key") if broker.cert else ("key", "cert")
        origin = origin_of(settings, "broker", given)
        raise ConfigError(f"{origin}: broker.{missing} is missing; give both or none")
    if broker.password_file:
        password = _read_password(broker.password_file, origin_of(settings, *PASSWORD_FILE))
        return dataclasses.replace(broker, password=password)
    return broker


def _read_password(file: str, origin: str) -> str:
    try:
        return Path(file).read_text("utf-8").rstrip("\r\n")
    except OSError as problem:
        reason = reason_of(problem, Path(file))
        if problem.errno == errno.ENOENT and not Path(file).suffix:
            raise ConfigError(
                f"{origin}: there is no such file (the value is not shown, since it may be a "
                "password); write the name of a file that holds the password"
            ) from None
        raise ConfigError(f"{origin}: {file}: {reason}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{origin}: {file} is not UTF-8 text") from None


def _check_dashboard(dashboard: DashboardSettings, settings: Settings) -> None:
    def check(check_text: Callable[[Any], object], value: object, *path: str) -> None:
        key = ("dashboard", *path)
        _check(origin_of(settings, *key), ".".join(key), check_text, value)

    check(parse_listen, dashboard.listen, "listen")
    for host in dashboard.hosts:
        check(check_host, host, "hosts")
    check(parse_networks, dashboard.proxy.trusted, "proxy", "trusted")
    check(check_header, dashboard.proxy.user_header, "proxy", "user_header")


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


def _check(origin: str, key: str, check: Callable[[Any], object], value: object) -> None:
    """Run a check of another module. Its error gets the origin in place of the key."""
    try:
        check(value)
    except UsageError as problem:
        raise ConfigError(f"{origin}: {str(problem).removeprefix(f'{key}: ')}") from None
