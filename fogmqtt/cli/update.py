"""`fog-gateway update`: boards that joined fetch this gateway's version, one after the other."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from fogmqtt.cli.invite import find_site
from fogmqtt.config import GatewayConfig
from fogmqtt.core.release import is_older
from fogmqtt.errors import NoBroker, NoGateway, UsageError, WireError
from fogmqtt.log import one_line
from fogmqtt.setup.brokers import one_off_id
from fogmqtt.setup.link import make_link
from fogmqtt.transport.base import Connected, Disconnected, Pong, Received, Refused
from fogmqtt.transport.paho import PahoTransport
from fogmqtt.wire.messages import Decoder, DeviceInfo, GatewayInfo, UpdateBoard, encode
from fogmqtt.wire.topics import ONLINE, Topics

if TYPE_CHECKING:
    from fogmqtt.joining.site import Site

log = logging.getLogger(__name__)

#: Seconds until a board has answered, has installed, and is online again.
_ANSWER_S: Final = 20.0
_INSTALL_S: Final = 3600.0
_START_S: Final = 300.0
#: How long the port where boards fetch is open after the last update began.
_PORT_OPEN: Final = timedelta(hours=1)


def update(config: GatewayConfig, options: argparse.Namespace) -> int:
    """UpdateBoard the boards that are named, or all that are behind. Returns the exit code.

    Raises NoBroker, NoGateway, UsageError and ConfigError.
    """
    if bool(options.boards) == options.all:
        raise UsageError("name the boards, or give --all for all that are behind")
    site = find_site(config)
    with _Fleet.watched(config) as fleet:
        version = fleet.gateway_version()
        boards = options.boards or fleet.boards_behind(version)
        if not boards:
            print(f"all boards have fogmqtt {version}")
            return 0
        for board in boards:
            fleet.check(board, version)
        failed = [board for board in boards if not _update(site, fleet, board, version)]
    return 1 if failed else 0


def _update(site: Site, fleet: _Fleet, board: str, version: str) -> bool:
    """UpdateBoard one board. Return whether it runs the version."""
    before = fleet.boards[board].versions.get("fogmqtt", "")
    if before == version:
        print(f"{board} has fogmqtt {version} already")
        return True
    _open_port(site)
    began = time.monotonic()
    reason = fleet.update(board, version)
    if reason:
        print(f"{board} stays with fogmqtt {before}: {reason}")
        return False
    print(f"{board} has fogmqtt {version} now, after {time.monotonic() - began:.0f} s")
    return True


def _open_port(site: Site) -> None:
    from fogmqtt.joining.bundle import utc_now

    with site.ledger.changing() as ledger:
        ledger.updates_until = utc_now() + _PORT_OPEN


@dataclass
class _Fleet:
    """What boards and the gateway say of themselves, for as long as somebody watches."""

    gateway: str
    topics: Topics
    events: SimpleQueue[object]
    transport: PahoTransport
    boards: dict[str, DeviceInfo] = field(default_factory=dict)
    online: set[str] = field(default_factory=set)
    gateway_info: GatewayInfo | None = None
    gateway_online: bool = False

    @classmethod
    @contextmanager
    def watched(cls, config: GatewayConfig) -> Iterator[_Fleet]:
        """Know what they have said when the block begins. Raises NoBroker."""
        topics, events = Topics(config.wire.prefix), SimpleQueue[object]()
        link = make_link(config.broker, topics.client_id("gateway", one_off_id(config, "update")))
        transport = PahoTransport(link, events.put)
        fleet = cls(config.gateway.id, topics, events, transport)
        for leaf in ("info", "status"):
            transport.subscribe(topics.device("+", leaf))
            transport.subscribe(topics.gateway(config.gateway.id, leaf))
        transport.start()
        try:
            fleet._get_ready(config.broker.connect_timeout_s)
            yield fleet
        finally:
            transport.close()

    def gateway_version(self) -> str:
        """Return the version of the gateway that serves. Raises NoGateway."""
        if self.gateway_info is None or not self.gateway_online:
            raise NoGateway(
                f"{self.gateway} does not serve, and boards fetch their version from it; start it"
            )
        return self.gateway_info.versions.get("fogmqtt", "")

    def boards_behind(self, version: str) -> list[str]:
        """Return the boards that are online, can be updated and have an older version."""
        return sorted(
            board
            for board, info in self.boards.items()
            if board in self.online
            and info.updates
            and is_older(info.versions.get("fogmqtt", ""), version)
        )

    def check(self, board: str, version: str) -> None:
        """Raise UsageError unless a board can be updated to a version."""
        info = self.boards.get(board)
        if info is None or board not in self.online:
            known = ", ".join(sorted(self.online)) or "no board"
            raise UsageError(f"{board} is not online; there is {known}")
        theirs = one_line(info.versions.get("fogmqtt", ""))[:40]
        if theirs == version:
            return
        if is_older(version, theirs):
            raise UsageError(
                f"{board} has fogmqtt {theirs}, and this gateway {version}: boards are not taken "
                f"back to an older version. Install {theirs} on the gateway, or install the board "
                f"anew by the line of fog-gateway invite --replace {board}"
            )
        if not info.updates:
            raise UsageError(
                f"{board} was not installed by the line of fog-gateway invite, so it cannot be "
                "updated from here; install its version as the first time"
            )

    def update(self, board: str, version: str) -> str:
        """Let a board update itself, and wait for the end. Return why it failed; empty if not."""
        boot = self.boards[board].boot
        topic = self.topics.device(board, "control")
        self.transport.publish(topic, encode(UpdateBoard(version=version)))
        state, deadline = "", time.monotonic() + _ANSWER_S
        while True:
            if not self._next(deadline):
                return _silence(state)
            info = self.boards.get(board)
            if info is None:
                return "it has left the fog"
            if info.versions.get("fogmqtt") == version and info.boot != boot:
                return ""
            report = info.update
            if report is None or report.version != version or report.state == state:
                continue
            if report.state == "failed" and state:
                return one_line(report.reason)
            if report.state == "taken back" and state == "starting":
                return f"{version} was taken back, since {one_line(report.reason)}"
            if report.state in ("fetching", "installing", "starting"):
                state = report.state
                print(f"{board} is {state} fogmqtt {version}", flush=True)
                wait = _START_S if state == "starting" else _INSTALL_S
                deadline = time.monotonic() + wait

    def _get_ready(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                event = self.events.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise NoBroker("the broker does not answer") from None
            match event:
                case Connected():
                    self.transport.ping()
                case Pong():
                    return
                case Refused(reason):
                    raise NoBroker(reason)
                case _:
                    self._note(event)

    def _next(self, deadline: float) -> bool:
        """Wait for the next message; return False if none came in time."""
        try:
            self._note(self.events.get(timeout=max(0.0, deadline - time.monotonic())))
        except Empty:
            return False
        return True

    def _note(self, event: object) -> None:
        if isinstance(event, Disconnected | Refused):
            log.warning("no connection to the broker: %s; trying again", event.reason)
        if not isinstance(event, Received):
            return
        kind, name, leaf = self.topics.levels(event.topic)
        payload = bytes(event.payload)
        try:
            if leaf == "status" and kind == "gateways":
                self.gateway_online = payload == ONLINE
            elif leaf == "status":
                (self.online.add if payload == ONLINE else self.online.discard)(name)
            elif kind == "gateways":
                self.gateway_info = Decoder(GatewayInfo).decode(payload)
            elif payload:
                self.boards[name] = Decoder(DeviceInfo).decode(payload)
            else:
                self.boards.pop(name, None)
        except WireError as problem:
            log.warning("%s: %s", one_line(event.topic), one_line(str(problem)))


def _silence(state: str) -> str:
    if not state:
        return "it does not answer"
    return f"nothing was heard of it since it was {state}; its log says more"
