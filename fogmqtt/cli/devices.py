"""`fog-gateway devices`: who there is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fogmqtt.cli.discovery import look_around
from fogmqtt.config import GatewayConfig
from fogmqtt.gateway.devices.registry import DeviceRegistry
from fogmqtt.log import one_line
from fogmqtt.wire.messages import DeviceInfo


def show_devices(config: GatewayConfig, console: Console, *, as_json: bool) -> int:
    """Print who is online. Raises NoBroker."""
    roster = look_around(config)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(_listed(roster))).decode())
    else:
        console.print(_devices(roster))
        console.print(Text("".join(_remarks(roster))), soft_wrap=True, end="")
    return 0


def _listed(roster: DeviceRegistry) -> dict[str, Any]:
    online = roster.present()
    return {
        device: {
            "online": device in online,
            "differs": roster.standard.differs(info),
            **msgspec.to_builtins(info),
        }
        for device, info in sorted(roster.infos.items())
    }


def _remarks(roster: DeviceRegistry) -> Iterator[str]:
    """What people should know of devices: how they round, and what is wrong with operators."""
    for device, info in sorted(roster.infos.items()):
        by_reason: dict[str, list[str]] = {}
        for ability, why in roster.standard.differs(info).items():
            by_reason.setdefault(why, []).append(ability)
        for why, abilities in by_reason.items():
            what = ", ".join(_shortened(abilities, info.fingerprints))
            yield f"{device} gets no tiles for {one_line(what)}: {one_line(why)}\n"
        if info.max_tile_pixels:
            yield f"{device} takes tiles of at most {info.max_tile_pixels:,} pixels\n"
        yield from (f"{device}: {one_line(problem)}\n" for problem in info.problems)


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


def _devices(roster: DeviceRegistry) -> Table | str:
    infos, online = dict(sorted(roster.infos.items())), roster.present()
    if not infos:
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
    for device, info in infos.items():
        table.add_row(
            device,
            "online" if device in online else "offline",
            Text(one_line(info.host)),
            str(info.workers),
            str(len(info.operators)),
            _differing(roster, info),
            str(info.tiles_done),
            f"{info.uptime_s:.0f} s",
            "" if info.temperature_c is None else f"{info.temperature_c:.0f}",
        )
    return table


def _differing(roster: DeviceRegistry, info: DeviceInfo) -> str:
    """How many operators a device does in another rounding."""
    if info.conformance_running:
        return "?"
    names = _by_name(roster.standard.differs(info))
    return str(len(names)) if names else ""
