"""Replies to whoever submitted an image: each is published until the broker has it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fogmqtt.errors import NotConnected, PublishRefused, TooLarge
from fogmqtt.gateway.broker_link import BrokerLink

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """A topic and what is published there."""

    topic: str
    payload: bytes


class Replies:
    """Publishes replies. It belongs to the event loop."""

    def __init__(self, link: BrokerLink, qos: int) -> None:
        self._link = link
        # At QoS 0 nobody would know whether the broker has a result.
        self._final_qos = max(1, qos)
        self._qos = qos
        self._owed: dict[int, int] = {}

    @property
    def owed_bytes(self) -> int:
        """Memory of final replies that the broker does not have yet."""
        return sum(self._owed.values())

    def publish(self, reply: Reply) -> None:
        """Publish something that may be lost: the final reply follows in any case."""
        try:
            self._link.publish(reply.topic, reply.payload, qos=self._qos)
        except NotConnected:
            return  # the final reply waits for the link

    async def deliver(self, replies: list[Reply]) -> None:
        """Publish the results of a job and then its status, again after every loss of the link.

        Returns when the broker has all of them. Raises TooLarge if one is over the broker's limit,
        and PublishRefused if the broker does not take it.
        """
        key = id(replies)
        self._owed[key] = sum(len(reply.payload) for reply in replies)
        try:
            for reply in replies:
                await self._confirm(reply)
                self._owed[key] -= len(reply.payload)
        finally:
            del self._owed[key]

    async def _confirm(self, reply: Reply) -> None:
        while True:
            await self._link.up()
            try:
                await self._link.publish_confirmed(reply.topic, reply.payload, qos=self._final_qos)
            except NotConnected:
                continue  # the next connection, if the broker did not have it before
            except (PublishRefused, TooLarge) as problem:
                raise type(problem)(
                    f"the reply on {reply.topic} was not taken: {problem}"
                ) from None
            return
