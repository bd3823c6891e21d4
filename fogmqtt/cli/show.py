"""`fog-gateway devices` and `fog-gateway operators`: what there is."""

from __future__ import annotations

import inspect
import secrets
from dataclasses import MISSING, Field, fields
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fogmqtt.cli.common import stop_on_signals
from fogmqtt.cli.connect import connector
from fogmqtt.complaints import one_line
from fogmqtt.config import GatewayConfig
from fogmqtt.gateway.loop import now
from fogmqtt.gateway.service import SETTLE_S, Gateway
from fogmqtt.operators import catalog
from fogmqtt.wire.messages import DeviceInfo


def show_devices(config: GatewayConfig, console: Console, *, as_json: bool) -> int:
    """Print who is online. Raises NoBroker."""
    gateway_id = f"{config.gateway.id[:20]}-look-{secrets.token_hex(2)}"
    gateway = Gateway(config, gateway_id, connector(config.broker, gateway_id))
    gateway.give_up(without_broker_s=config.broker.connect_timeout_s, timeout_s=None)
    try:
        gateway.transport.start()
        with stop_on_signals(gateway.stop):
            gateway.run(lambda: gateway.connected)
            until = now() + SETTLE_S
            gateway.chores.append(lambda _: until)
            gateway.run(lambda: now() >= until)
        online = gateway.roster.present()
        infos = dict(sorted(gateway.roster.infos.items()))
    finally:
        gateway.close()
    if as_json:
        listed = {
            device: {"online": device in online, **msgspec.to_builtins(info)}
            for device, info in infos.items()
        }
        print(msgspec.json.format(msgspec.json.encode(listed)).decode())
    else:
        console.print(_devices(infos, online))
    return 0


def _devices(infos: dict[str, DeviceInfo], online: tuple[str, ...]) -> Table | str:
    if not infos:
        return "no device has ever announced itself here; start one: fog-device --id eya"
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("device", "status", "host", "workers", "operators", "tiles", "up", "°C"):
        table.add_column(heading)
    for device, info in infos.items():
        table.add_row(
            device,
            "online" if device in online else "offline",
            Text(one_line(info.host)),
            str(info.workers),
            str(len(info.operators)),
            str(info.done),
            f"{info.uptime_s:.0f} s",
            "" if info.temperature_c is None else f"{info.temperature_c:.0f}",
        )
    return table


def show_operators(console: Console) -> int:
    """Print every operator with its parameters."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("operator", "parameters", "what it does"):
        table.add_column(heading)
    for name in catalog.names():
        operator = catalog.load(name)
        summary = (inspect.getdoc(operator) or "").splitlines()
        written = " ".join(
            f"{field.name}={_default(field)}"
            for field in fields(operator)
            if field.name in catalog.parameters(operator)
        )
        table.add_row(name, written, summary[0] if summary else "")
    console.print(table)
    return 0


def _default(field: Field[Any]) -> str:
    if field.default is MISSING:
        return "…"
    return str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
