"""The events of a gateway, and the bus that passes them to listeners.

Every listener has a bounded queue of its own. A listener that does not keep up, or that raises, is
dropped and named in the log. It never delays a job or another listener.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Final, Self

from msgspec import Struct

from fogmqtt.errors import ListenerDropped
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.gateway.threads import Threads

log = logging.getLogger(__name__)

#: Events that may wait for one listener.
QUEUE_LENGTH: Final = 1000


class JobAccepted(Struct, frozen=True):
    """A job was submitted. It waits for its turn."""

    report: Report


class JobProgressed(Struct, frozen=True):
    """Tiles of a job were planned or merged; sent at most ten times a second for a job.

    `report` is the job's own: it shows the figures at the moment when it is read.
    """

    report: Report


class JobNoticed(Struct, frozen=True):
    """A notice about a job for users, such as that no device is online."""

    report: Report
    text: str


class JobEnded(Struct, frozen=True):
    """A job has ended. `error` is None if its result was delivered."""

    report: Report
    error: str | None


class DeviceCame(Struct, frozen=True):
    """A device is online, or sent a new description."""

    device: str


class DeviceLeft(Struct, frozen=True):
    """A device is offline, or takes no more tiles."""

    device: str
    reason: str


class BrokerChanged(Struct, frozen=True):
    """The link to the broker came up or broke."""

    connected: bool


GatewayEvent = (
    JobAccepted | JobProgressed | JobNoticed | JobEnded | DeviceCame | DeviceLeft | BrokerChanged
)


class EventSubscription:
    """The events for one listener: an asynchronous iterator and a context manager.

    Iterating raises ListenerDropped after the listener fell behind. It ends when the gateway stops.
    """

    def __init__(self, bus: EventBus, name: str, limit: int) -> None:
        self.name = name
        self._bus = bus
        self._limit = limit
        self._events: deque[GatewayEvent] = deque()
        self._wake = asyncio.Event()
        self._closed = False
        self._dropped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> GatewayEvent:
        while not self._events:
            if self._dropped:
                raise ListenerDropped(f"listener {self.name} fell {self._limit} events behind")
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._events.popleft()

    def close(self) -> None:
        """End the subscription."""
        self._bus.remove(self)
        self._closed = True
        self._wake.set()

    def put(self, event: GatewayEvent) -> None:
        """Add an event; for the bus."""
        if len(self._events) >= self._limit:
            self._dropped = True
            self._events.clear()
            self.close()
            log.warning("listener %s is dropped: it is %d events behind", self.name, self._limit)
            return
        self._events.append(event)
        self._wake.set()


class EventBus:
    """Passes events to the listeners. All methods belong to the event loop."""

    def __init__(self) -> None:
        self._subscriptions: list[EventSubscription] = []

    def subscribe(self, name: str, limit: int = QUEUE_LENGTH) -> EventSubscription:
        """Start a subscription. `name` is the listener's name in the log."""
        subscription = EventSubscription(self, name, limit)
        self._subscriptions.append(subscription)
        return subscription

    def remove(self, subscription: EventSubscription) -> None:
        """Remove a subscription."""
        with suppress(ValueError):  # it was removed before
            self._subscriptions.remove(subscription)

    def emit(self, event: GatewayEvent) -> None:
        """Pass an event to every listener."""
        for subscription in tuple(self._subscriptions):
            subscription.put(event)

    def notice(self, report: Report, text: str) -> None:
        """Tell users something about a job. Its report keeps it."""
        report.notes.append(text)
        self.emit(JobNoticed(report, text))

    def close(self) -> None:
        """End every subscription."""
        for subscription in tuple(self._subscriptions):
            subscription.close()


async def follow(
    subscription: EventSubscription, handle: Callable[[GatewayEvent], object], threads: Threads
) -> None:
    """Call `handle` for each event, in a thread, so that a slow one delays only itself.

    When `handle` raises, its listener is dropped and named in the log.
    """
    with subscription:
        try:
            async for event in subscription:
                await threads.apart(partial(handle, event), subscription.name)
        except ListenerDropped:
            return  # the bus has logged it
        except Exception:
            log.exception("listener %s is dropped: it failed", subscription.name)
