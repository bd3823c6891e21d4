"""`fog-gateway devices`: who there is."""

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
    """Print who is online. Raises NoBroker."""
    devices = find_devices(config)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(_listed(devices))).decode())
    else:
        console.print(_table(devices))
        console.print(Text("".join(_remarks(devices))), soft_wrap=True, end="")
    return 0


def _listed(devices: Sequence[DeviceView]) -> dict[str, Any]:
    return {
        device.id: {
            "online": device.online,
            "differs": device.differs,
            **msgspec.to_builtins(device.info),
        }
        for device in devices
    }


def _remarks(devices: Sequence[DeviceView]) -> Iterator[str]:
    """What people should know of devices: how they round, and what is wrong with operators."""
    for device in devices:
        info = device.info
        by_reason: dict[str, list[str]] = {}
        for ability, why in device.differs.items():
            by_reason.setdefault(why, []).append(ability)
        for why, abilities in by_reason.items():
            what = ", ".join(_shortened(abilities, info.fingerprints))
            yield f"{device.id} gets no tiles for {one_line(what)}: {one_line(why)}\n"
        if info.max_tile_pixels:
            yield f"{device.id} takes tiles of at most {info.max_tile_pixels:,} pixels\n"
        yield from (f"{device.id}: {one_line(problem)}\n" for problem in info.problems)


def _shortened(abilities: Sequence[str], known: Iterable[str]) -> Iterator[str]:
    """Of operators of which every ability is there, only the name."""
    every, some = _by_name(known), _by_name(abilities)
    for name, those in some.items():
        yield from [name] if len(those) == len(every[name]) else those


def _by_name(abilities: Iterable[str]) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {}
    for ability in abilities:
        named.setdefault(ability.partition("/")[0], []).append(ability)
    return named


def _table(devices: Sequence[DeviceView]) -> Table | str:
    if not devices:
        return "no device has ever announced itself here; start one: fog-device --id eya"
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
            _differing(device),
            str(info.tiles_done),
            f"{info.uptime_s:.0f} s",
            "" if info.temperature_c is None else f"{info.temperature_c:.0f}",
        )
    return table


def _differing(device: DeviceView) -> str:
    """How many operators a device rounds differently."""
    if device.info.conformance_running:
        return "?"
    names = _by_name(device.differs)
    return str(len(names)) if names else ""
