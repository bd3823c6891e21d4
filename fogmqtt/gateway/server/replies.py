"""What is owed to whoever asked: each message until the broker has it. Owner thread only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fogmqtt.errors import NotConnected, TooLarge
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.storage.api import SpoolEntry


@dataclass(slots=True, eq=False)
class Reply:
    """A topic and what is said there."""

    topic: str
    payload: bytes
    #: On its way on the present link; with the broker.
    sent: bool = False
    taken: bool = False


@dataclass(slots=True, eq=False)
class FinalReply:
    """The end of a job: its results, then its status."""

    entry: SpoolEntry
    messages: list[Reply]
    #: Why it failed.
    error: str | None = None


class Replies:
    """Says farewell in order, again after every loss of the link; `over` hears of the last word.

    `failed` makes the status of a job whose result is more than the broker takes.
    """

    def __init__(
        self,
        gateway: Gateway,
        qos: int,
        *,
        over: Callable[[FinalReply], None],
        failed: Callable[[SpoolEntry, str], Reply],
    ) -> None:
        self._gateway = gateway
        self._qos = qos
        self._over = over
        self._failed = failed
        self._owed: list[FinalReply] = []
        self._link = 0
        gateway.on_published = self._published
        gateway.periodic_tasks.append(self._tick)

    @property
    def owed_bytes(self) -> int:
        """Memory of what the broker does not have yet."""
        return sum(len(message.payload) for message in self._messages())

    def say(self, message: Reply) -> None:
        """Publish something that is lost without a link."""
        try:
            self._gateway.transport.publish(message.topic, message.payload, qos=self._qos)
        except NotConnected:
            return  # the end is told in any case

    def owe(self, farewell: FinalReply) -> None:
        """Say it now, or once there is a link."""
        self._owed.append(farewell)
        self._send_all()

    def _tick(self, _moment: float) -> float | None:
        self._send_all()
        return None

    def _send_all(self) -> None:
        if not self._gateway.connected:
            return
        if self._link != self._gateway.links:
            self._link = self._gateway.links
            for message in self._messages():
                message.sent = message.taken
        try:
            for farewell in self._owed:
                self._send(farewell)
        except NotConnected:
            return  # the next Connected comes
        self._settle()

    def _send(self, farewell: FinalReply) -> None:
        try:
            for message in farewell.messages:
                if not message.sent:
                    self._publish(message)
        except TooLarge as problem:
            self._say_less(farewell, str(problem))

    def _publish(self, message: Reply) -> None:
        self._gateway.transport.publish(
            message.topic, message.payload, qos=self._qos, token=message
        )
        message.sent = True

    def _say_less(self, farewell: FinalReply, reason: str) -> None:
        """Nobody can have this result: say so instead."""
        self._gateway.complain("reply", reason)
        if farewell.error is not None:
            farewell.messages = []  # not even that fits
            return
        farewell.error = reason
        farewell.messages = [self._failed(farewell.entry, reason)]
        self._send(farewell)

    def _published(self, token: object) -> None:
        if isinstance(token, Reply):
            token.taken = True
            self._settle()

    def _settle(self) -> None:
        for farewell in tuple(self._owed):
            if all(message.taken for message in farewell.messages):
                self._owed.remove(farewell)
                self._over(farewell)

    def _messages(self) -> list[Reply]:
        return [message for farewell in self._owed for message in farewell.messages]
