"""The link to the broker for coroutines.

The transport has a thread of its own, and delivers one item after another. Here the items become an
asynchronous iterator, and a publish with confirmation becomes a coroutine.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from fogmqtt.errors import NotConnected, PublishRefused
from fogmqtt.gateway.clock import now
from fogmqtt.transport.base import (
    Connected,
    Deliver,
    Disconnected,
    Payload,
    Pong,
    Published,
    Receipt,
    Received,
    Transport,
    Will,
)

Connect = Callable[[Deliver, Will], Transport]

#: Seconds in which items are handled before other coroutines get their turn.
_BATCH_S: Final = 0.005

#: Bytes of a packet beside a picture.
_PICTURE_ROOM: Final = 2048

#: The broker sends so many messages before it waits for our acknowledgements (Mosquitto: 20). What
#: is behind them comes after its answer to a ping.
_WINDOW: Final = 20
#: Pings in a row until everything that waits at the broker is here, at most.
_MOST_PINGS: Final = 100


class BrokerLink:
    """One transport. Only `_deliver` may be called outside the event loop."""

    def __init__(self, connect: Connect, will: Will) -> None:
        """`connect` makes the transport; its arguments are a delivery function and the will."""
        self._items: deque[object] = deque()
        self._wake = asyncio.Event()
        self._wake_requested = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._up = asyncio.Event()
        self._confirmations: dict[object, asyncio.Future[None]] = {}
        #: What is called when the broker answers to a message, by token.
        self._answered: dict[object, Callable[[float], None]] = {}
        #: Those that wait for the answer to a ping, in the order of the pings.
        self._pings: deque[asyncio.Future[None]] = deque()
        #: The number of messages that arrived.
        self._received = 0
        #: The number of connections so far. Messages of an earlier one may be lost.
        self.connections = 0
        #: The largest packet that the broker takes, in bytes; None if it did not announce it.
        self.max_packet_bytes: int | None = None
        self.transport = connect(self._deliver, will)

    @property
    def max_picture_bytes(self) -> int | None:
        """How large a picture in a message may be; None if the broker did not announce it."""
        return None if self.max_packet_bytes is None else self.max_packet_bytes - _PICTURE_ROOM

    @property
    def connected(self) -> bool:
        """Whether the broker can be reached at this moment."""
        return self._up.is_set()

    @property
    def idle(self) -> bool:
        """Whether all items that arrived are handled."""
        return not self._items

    def start(self) -> None:
        """Connect in the background, and again whenever the link breaks."""
        self._loop = asyncio.get_running_loop()
        self.transport.start()

    async def up(self) -> None:
        """Wait until the link is up."""
        await self._up.wait()

    async def items(self) -> AsyncIterator[object]:
        """Yield the transport's items in order. Only one coroutine may iterate."""
        while True:
            until = now() + _BATCH_S
            while self._items and now() < until:
                item = self._items.popleft()
                if not self._handle(item):
                    yield item
            await self._wait_for_item()

    def publish(
        self,
        topic: str,
        payload: Payload,
        *,
        answered: Callable[[float], None] | None = None,
        **options: Any,
    ) -> None:
        """Publish without waiting; `options` as for `Transport.publish`.

        `answered` is called with the time when the broker took or refused the message, unless the
        link breaks first. Raises NotConnected and TooLarge.
        """
        if answered is None:
            self.transport.publish(topic, payload, **options)
            return
        token = object()
        self._answered[token] = answered
        try:
            self.transport.publish(topic, payload, token=token, **options)
        except BaseException:
            self._answered.pop(token, None)
            raise

    async def publish_confirmed(
        self, topic: str, payload: bytes, *, qos: int, **options: Any
    ) -> None:
        """Publish, and wait until the broker has the message; `options` as for `publish`.

        Raises NotConnected if the link is down or breaks first, PublishRefused if the broker does
        not take the message, and TooLarge.
        """
        token = object()
        confirmation = asyncio.get_running_loop().create_future()
        self._confirmations[token] = confirmation
        try:
            self.transport.publish(topic, payload, qos=qos, token=token, **options)
            await confirmation
        finally:
            self._confirmations.pop(token, None)

    async def confirm(self) -> float:
        """Wait until all that the broker had sent before now is handled; return that time.

        Whoever was stopped, or has a link that stalls, hears first what there is and judges then.
        Raises NotConnected if the link is down or breaks first.
        """
        asked_at = now()
        for _ in range(_MOST_PINGS):
            received = self._received
            await self._ping()
            if self._received - received < _WINDOW:
                break
        return asked_at

    async def _ping(self) -> None:
        answer = asyncio.get_running_loop().create_future()
        self._pings.append(answer)
        try:
            self.transport.ping()
        except BaseException:
            self._pings.remove(answer)
            raise
        await answer

    def acknowledge(self, receipt: Receipt) -> None:
        """Acknowledge a message: the broker does not send it again."""
        self.transport.acknowledge(receipt)

    def close(self) -> None:
        """Disconnect."""
        self.transport.close()

    def _deliver(self, item: object) -> None:
        """Take an item from the transport's thread."""
        self._items.append(item)
        if self._loop is None or self._wake_requested:
            return
        self._wake_requested = True
        try:
            self._loop.call_soon_threadsafe(self._wake.set)
        except RuntimeError:
            return  # the loop is closed: no coroutine iterates any more

    async def _wait_for_item(self) -> None:
        """Wait for another item, and let other coroutines run in any case."""
        self._wake_requested = False
        self._wake.clear()
        if self._items:
            await asyncio.sleep(0)
        else:
            await self._wake.wait()

    def _handle(self, item: object) -> bool:
        """Handle an item of the link itself. Returns True if no other part needs the item."""
        match item:
            case Published(token, refusal, at):
                if (answered := self._answered.pop(token, None)) is not None:
                    answered(at)
                else:
                    self._confirm(token, refusal)
                return True
            case Pong():
                if self._pings:
                    _settle(self._pings.popleft())
                return True
            case Received():
                self._received += 1
            case Connected(max_packet_bytes):
                self.max_packet_bytes = max_packet_bytes
                self.connections += 1
                self._up.set()
            case Disconnected(reason):
                self._up.clear()
                self._answered.clear()
                self._fail_confirmations(reason)
            case _:
                pass
        return False

    def _confirm(self, token: object, refusal: str) -> None:
        confirmation = self._confirmations.pop(token, None)
        if confirmation is None or confirmation.done():
            return
        if refusal:
            confirmation.set_exception(PublishRefused(refusal))
        else:
            confirmation.set_result(None)

    def _fail_confirmations(self, reason: str) -> None:
        waiting = [*self._confirmations.values(), *self._pings]
        self._confirmations = {}
        self._pings.clear()
        for one in waiting:
            if not one.done():
                one.set_exception(NotConnected(reason))


def _settle(future: asyncio.Future[None]) -> None:
    """End the wait for a future, unless the one that waited was cancelled."""
    if not future.done():
        future.set_result(None)
