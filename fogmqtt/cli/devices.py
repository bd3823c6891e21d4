"""`fog-gateway devices`: the devices that have announced themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fogmqtt.cli.discovery import find_devices
from fogmqtt.config import GatewayConfig
from fogmqtt.gateway.devices.registry import DeviceView
from fogmqtt.log import one_line


def show_devices(config: GatewayConfig, console: Console, *, as_json: bool) -> int:
    """Print the devices and return the exit code. Raises NoBroker."""
    devices = find_devices(config)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(_as_json(devices))).decode())
    else:
        console.print(_table(devices))
        console.print(Text("".join(_remarks(devices))), soft_wrap=True, end="")
    return 0


def _as_json(devices: Sequence[DeviceView]) -> dict[str, Any]:
    return {
        device.id: {
            "online": device.online,
            "differs": device.differs,
            **msgspec.to_builtins(device.info),
        }
        for device in devices
    }


def _remarks(devices: Sequence[DeviceView]) -> Iterator[str]:
    """Yield lines about devices: different results, limits, and problems of operators."""
    for device in devices:
        info = device.info
        by_reason: dict[str, list[str]] = {}
        for ability, reason in device.differs.items():
            by_reason.setdefault(reason, []).append(ability)
        for reason, abilities in by_reason.items():
            names = ", ".join(_shorten(abilities, info.fingerprints))
            yield f"{device.id} gets no tiles for {one_line(names)}: it {one_line(reason)}\n"
        if device.version_remark:
            yield f"{device.id} {device.version_remark}\n"
        if info.max_tile_pixels:
            yield f"{device.id} takes tiles of at most {info.max_tile_pixels:,} pixels\n"
        yield from (f"{device.id}: {one_line(problem)}\n" for problem in info.problems)


def _shorten(abilities: Sequence[str], all_abilities: Iterable[str]) -> Iterator[str]:
    """Yield only the name of an operator if `abilities` has all its abilities."""
    complete = _by_operator(all_abilities)
    for name, some in _by_operator(abilities).items():
        yield from [name] if len(some) == len(complete[name]) else some


def _by_operator(abilities: Iterable[str]) -> dict[str, list[str]]:
    by_operator: dict[str, list[str]] = {}
    for ability in abilities:
        by_operator.setdefault(ability.partition("/")[0], []).append(ability)
    return by_operator


def _table(devices: Sequence[DeviceView]) -> Table | str:
    if not devices:
        return "no device has announced itself at this broker; start one: fog-device --id eya"
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in (
        "device",
        "status",
        "host",
        "workers",
        "operators",
        "differs",
        "tiles",
        "up",
        "°C",
    ):
        table.add_column(heading)
    for device in devices:
        info = device.info
        table.add_row(
            device.id,
            "online" if device.online else "offline",
            Text(one_line(info.host)),
            str(info.workers),
            str(len(info.operators)),
            _differing_operators(device),
            str(info.tiles_done),
            f"{info.uptime_s:.0f} s",
            "" if info.temperature_c is None else f"{info.temperature_c:.0f}",
        )
    return table


def _differing_operators(device: DeviceView) -> str:
    """Return the number of operators with other results than here; "?" if it is not known yet."""
    if device.info.conformance_running:
        return "?"
    names = _by_operator(device.differs)
    return str(len(names)) if names else ""
