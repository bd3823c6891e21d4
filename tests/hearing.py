"""Who was sent which tile when, and who answered: a client that hears all of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fogmqtt.transport.base import Connected, Received
from fogmqtt.transport.link import Link
from fogmqtt.transport.paho import PahoTransport
from fogmqtt.wire.messages import (
    Accepted,
    Decoder,
    Failure,
    FromDevice,
    Rejected,
    Result,
    TileTask,
)
from tests.fog import Inbox, wait_for

_TASKS = Decoder(TileTask)
_ANSWERS: Decoder[FromDevice] = Decoder(Accepted, Result, Failure, Rejected)

#: Stage and index; attempts of a tile share it.
Key = tuple[str, int]


@dataclass(frozen=True)
class Sent:
    """A tile on its way to a device."""

    key: Key
    device: str
    at: float
    lease_s: float
    #: The size of the message.
    nbytes: int


@dataclass
class Hearing:
    """What went over the broker, in its order, with the moment when it was heard."""

    sent: list[Sent] = field(default_factory=list)
    #: (tile, device, when) of every result.
    results: list[tuple[Key, str, float]] = field(default_factory=list)
    #: (device, what it or its will said) on status topics.
    statuses: list[tuple[str, str]] = field(default_factory=list)

    def hear(self, message: Received, now: float) -> None:
        match message.topic.split("/"):
            case [_, _, "devices", device, "tiles"]:
                task = _TASKS.decode(message.payload)
                self.sent.append(
                    Sent((task.job, task.tile), device, now, task.lease_s, len(message.payload))
                )
            case [_, _, "devices", device, "status"]:
                self.statuses.append((device, message.payload.decode()))
            case [*_, "results", device]:
                answer = _ANSWERS.decode(message.payload)
                if isinstance(answer, Result):
                    self.results.append(((answer.job, answer.tile), device, now))

    def wait_for_results(self, count: int) -> None:
        wait_for(lambda: len(self.results) >= count, within=60, what=f"{count} results")

    def open_at(self, device: str, moment: float) -> set[Key]:
        """The tiles that a device held at a moment: sent to it, and nobody had answered."""
        answered = {key for key, _, at in self.results if at <= moment}
        mine = {sent.key for sent in self.sent if sent.device == device and sent.at <= moment}
        return mine - answered

    def done_by(self, key: Key) -> str:
        """Who gave its first result."""
        return next(device for one, device, _ in self.results if one == key)

    def moved_at(self, key: Key, device: str, after: float) -> float:
        """When a tile that this device held was first with another one."""
        return max(
            after,
            next(sent.at for sent in self.sent if sent.key == key and sent.device != device),
        )

    def lease_of(self, key: Key, device: str) -> float:
        return max(one.lease_s for one in self.sent if (one.key, one.device) == (key, device))

    @property
    def resent(self) -> int:
        """How many tiles were sent beyond once each."""
        return len(self.sent) - len({sent.key for sent in self.sent})


@contextmanager
def hearing(url: str) -> Iterator[Hearing]:
    """Hear all tiles, answers and statuses."""
    heard, inbox = Hearing(), Inbox()

    def deliver(event: object) -> None:
        if isinstance(event, Received):
            heard.hear(event, time.monotonic())
        else:
            inbox.put(event)

    transport = PahoTransport(Link(url, "hearing"), deliver)
    for leaf in ("devices/+/tiles", "devices/+/status", "gateways/+/results/+"):
        transport.subscribe(f"fog/v1/{leaf}")
    transport.start()
    try:
        inbox.take(Connected)
        yield heard
    finally:
        transport.close()
