"""Clears what boards have left retained on the topics of results, where nobody asks for it.

A gateway that does one job has a random id, so the access list lets a board answer gateways of any
name, and Mosquitto's cannot forbid to retain there.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final

from fogmqtt.config import BrokerSettings
from fogmqtt.errors import TransportError
from fogmqtt.setup.link import make_link
from fogmqtt.transport.base import Connected, Received
from fogmqtt.transport.paho import PahoTransport
from fogmqtt.wire.topics import Topics

log = logging.getLogger(__name__)

#: Seconds between two looks of a serving gateway.
EVERY_S: Final = 300.0
#: Seconds until the broker has answered, without a message, and of one look altogether.
_ANSWER_S: Final = 5.0
_QUIET_S: Final = 0.3
_LONGEST_S: Final = 60.0


def clear_leftovers(broker: BrokerSettings, topics: Topics, board: str = "+") -> frozenset[str]:
    """Clear retained results of a board, or of all, and return who has left them."""
    events: SimpleQueue[object] = SimpleQueue()
    name = topics.client_id("gateway", f"clear-{secrets.token_hex(2)}")
    transport = PahoTransport(make_link(broker, name), events.put)
    transport.subscribe(topics.results("+", board), qos=0)
    transport.start()
    try:
        event = events.get(timeout=_ANSWER_S)
        if isinstance(event, Connected):
            return clear_those_that_come(transport, events)
        log.debug("retained results are not looked for: %s", event)
    except (Empty, TransportError):
        pass  # the broker is gone, and so is what it kept
    finally:
        transport.close()
    return frozenset()


def clear_those_that_come(transport: PahoTransport, events: SimpleQueue[object]) -> frozenset[str]:
    """Clear the retained results that a new connection gets, and return who has left them.

    Raises TransportError.
    """
    found, ends = set[str](), time.monotonic() + _LONGEST_S
    with suppress(Empty):
        while time.monotonic() < ends:
            match events.get(timeout=_QUIET_S):
                case Received(topic=topic, retained=True):
                    transport.publish(topic, b"", qos=0, retain=True)
                    found.add(topic.rpartition("/")[2])
    return frozenset(found)


class LeftoverWatch:
    """Looks for retained results in a thread, until `close`."""

    def __init__(self, broker: BrokerSettings, prefix: str) -> None:
        self._broker = broker
        self._topics = Topics(prefix)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="leftovers", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, which may still wait for the broker for a moment."""
        self._closing.set()

    def _watch(self) -> None:
        while not self._closing.wait(EVERY_S):
            for board in sorted(clear_leftovers(self._broker, self._topics)):
                log.warning(
                    "%s left retained messages on topics of results, which no agent does, and they "
                    "are cleared; if you do not know why: fog-gateway revoke %s",
                    board,
                    board,
                )
