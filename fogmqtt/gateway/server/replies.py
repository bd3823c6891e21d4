"""Replies to the clients that submit images: each is published until the broker has it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fogmqtt.errors import NotConnected, PublishRefused, TooLarge
from fogmqtt.gateway.broker_link import BrokerLink
from fogmqtt.transport.base import NO_PROPERTIES, MessageProperties

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """A message for a client."""

    topic: str
    payload: bytes
    content_type: str = "application/json"
    properties: MessageProperties = NO_PROPERTIES
    retain: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Everything else for `Transport.publish`."""
        return {
            "content_type": self.content_type,
            "properties": self.properties,
            "retain": self.retain,
        }


class Replies:
    """Publishes replies. It belongs to the event loop.

    `owed_changed` is called after every change of `owed_bytes`.
    """

    def __init__(
        self, link: BrokerLink, qos: int, owed_changed: Callable[[], None] = lambda: None
    ) -> None:
        self._link = link
        self._owed_changed = owed_changed
        # At QoS 0 nobody would know whether the broker has a result.
        self._final_qos = max(1, qos)
        self._qos = qos
        #: Bytes that the broker does not have yet, by the id of the list of replies.
        self._owed: dict[int, int] = {}

    @property
    def owed_bytes(self) -> int:
        """The bytes of the final replies that the broker does not have yet."""
        return sum(self._owed.values())

    def publish(self, reply: Reply) -> None:
        """Publish a reply that may be lost, because the final reply follows."""
        try:
            self._link.publish(reply.topic, reply.payload, qos=self._qos, **reply.options)
        except NotConnected:
            return  # the final reply waits for the link
        except TooLarge as problem:
            log.warning("not published: %s", problem)

    async def deliver(self, replies: list[Reply]) -> None:
        """Publish the results of a job and then its status, again after every loss of the link.

        Returns when the broker has all of them. Raises TooLarge if one is over the broker's limit,
        and PublishRefused if the broker does not take it.
        """
        try:
            for index, reply in enumerate(replies):
                self._owed[id(replies)] = sum(len(owed.payload) for owed in replies[index:])
                self._owed_changed()
                await self._confirm(reply)
        finally:
            self._owed.pop(id(replies), None)
            self._owed_changed()

    async def _confirm(self, reply: Reply) -> None:
        while True:
            await self._link.up()
            try:
                await self._link.publish_confirmed(
                    reply.topic, reply.payload, qos=self._final_qos, **reply.options
                )
            except NotConnected:
                continue  # it is published again over the next connection
            except (PublishRefused, TooLarge) as problem:
                raise type(problem)(
                    f"the reply on {reply.topic} was not taken: {problem}"
                ) from None
            return
