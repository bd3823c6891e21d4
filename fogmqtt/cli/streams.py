"""`fog-gateway streams`: the streams of the gateways at the broker, from their retained topics."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fogmqtt.cli.async_program import run_async
from fogmqtt.config import GatewayConfig
from fogmqtt.errors import NoBroker, NotConnected, WireError
from fogmqtt.gateway.broker_link import BrokerLink
from fogmqtt.gateway.devices.status_publisher import gateway_will
from fogmqtt.log import one_line
from fogmqtt.setup.brokers import connector, one_off_id
from fogmqtt.transport.base import Received
from fogmqtt.wire.stream_messages import StreamState
from fogmqtt.wire.topics import Topics, is_id

#: What one stream retains, by the last level of the topic.
Retained = dict[str, bytes]


def show_streams(config: GatewayConfig, console: Console, *, as_json: bool) -> int:
    """Print the streams and return the exit code. Raises NoBroker."""
    streams = run_async(find_streams(config))
    if as_json:
        found = {name: _as_json(leaves) for name, leaves in sorted(streams.items())}
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
    elif streams:
        console.print(_table(streams))
    else:
        console.print("no gateway has streams at this broker; docs/streams.md says how to begin")
    return 0


async def find_streams(config: GatewayConfig) -> dict[str, Retained]:
    """Return what streams have retained at the broker. Raises NoBroker."""
    import asyncio

    gateway_id = one_off_id(config, "look")
    topics = Topics(config.wire.prefix)
    link = BrokerLink(connector(config, gateway_id), gateway_will(gateway_id, topics))
    for leaf in ("status", "source", "state", "enabled"):
        link.transport.subscribe(topics.stream("+", leaf), qos=config.wire.qos)
    found: dict[str, Retained] = {}

    async def listen() -> None:
        async for item in link.items():
            if isinstance(item, Received) and item.payload:
                with suppress(WireError):
                    _, name, leaf = topics.levels(item.topic)
                    if is_id(name):
                        found.setdefault(name, {})[leaf] = bytes(item.payload)

    link.start()
    listening = asyncio.create_task(listen())
    try:
        async with asyncio.timeout(config.broker.connect_timeout_s):
            await link.up()
            await link.confirm()  # all that is retained has come by then
    except (TimeoutError, NotConnected):
        raise NoBroker(f"no broker answered at {', '.join(config.broker.urls)}") from None
    finally:
        listening.cancel()
        link.close()
    return found


def _state(leaves: Mapping[str, bytes]) -> StreamState:
    with suppress(msgspec.MsgspecError):
        return msgspec.json.decode(leaves.get("state", b"{}"), type=StreamState)
    return StreamState()


def _as_json(leaves: Mapping[str, bytes]) -> dict[str, Any]:
    words = ("status", "source", "enabled")
    told = {leaf: leaves[leaf].decode(errors="replace") for leaf in words if leaf in leaves}
    return {**msgspec.to_builtins(_state(leaves)), **told}


def _table(streams: Mapping[str, Retained]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("stream", "status", "source", "fps in", "out", "age p99", "dropped", "gateway"):
        table.add_column(heading)
    for name, leaves in sorted(streams.items()):
        state, told = _state(leaves), _as_json(leaves)
        reason = f"{told.get('source', '')} {state.reason}".strip()
        table.add_row(
            name,
            Text(one_line(told.get("status", ""))),
            Text(one_line(reason)),
            f"{state.fps_in:.1f}",
            f"{state.fps_out:.1f}",
            f"{1000 * state.age_s.p99:.0f} ms",
            Text(one_line(_drops(state))),
            Text(one_line(state.gateway)),
        )
    return table


def _drops(state: StreamState) -> str:
    counts = {**state.dropped, "late": state.late, "failed": state.failed}
    return ", ".join(f"{why} {count}" for why, count in counts.items() if count)
