"""What a broker lacks, and what its client does without it.

An MQTT 5 broker announces in its CONNACK what it does not have. Others refuse it when it is used,
or close the connection. One transport remembers what it learned, and says each lack once.
"""

from __future__ import annotations

import logging
from typing import Final

from fogmqtt.transport.link import Address, short_client_id, without_share

log = logging.getLogger(__name__)

#: Connections that may end before a shared subscription is answered, until it counts as the reason.
MAX_CUTS: Final = 2

_BAD_CLIENT_ID: Final = 0x85
_NO_RETAIN: Final = 0x9A
_NO_QOS: Final = 0x9B


class BrokerFeatures:
    """The features of one broker, as its newest connection shows them. Not thread-safe."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._said: set[str] = set()
        #: Connections that ended while a shared subscription waited for its answer, in a row.
        self._cuts = 0
        self._has_short_ids = False
        self.has_shared = True
        self.has_wildcards = True
        self.has_retain = True
        self.max_qos = 2

    def announced(self, properties: object) -> None:
        """Take the properties of a CONNACK; None if it has none."""
        shared = bool(getattr(properties, "SharedSubscriptionAvailable", True))
        self.has_shared = shared and self._cuts < MAX_CUTS
        self.has_wildcards = bool(getattr(properties, "WildcardSubscriptionAvailable", True))
        self.has_retain = bool(getattr(properties, "RetainAvailable", True))
        self.max_qos = int(getattr(properties, "MaximumQoS", 2))
        if not self.has_retain:
            self._say_no_retain()
        if self.max_qos < 1:
            self._say_no_qos()

    def connect_refused(self, code: int, client_id: str) -> bool:
        """Take the code of a CONNACK that refuses a connection with this client id.

        Returns whether an attempt with another will or client id may succeed, which the next one
        has.
        """
        if code == _BAD_CLIENT_ID and not self._has_short_ids:
            self._has_short_ids = True
            self._say(f"refuses the client id {client_id}: using {short_client_id(client_id)}")
            return True
        if code == _NO_RETAIN and self.has_retain:
            self.has_retain = False
            self._say_no_retain()
            return True
        if code == _NO_QOS and self.max_qos > 0:
            self.max_qos = 0
            self._say_no_qos()
            return True
        return False

    def client_id(self, wanted: str) -> str:
        """The client id to connect with: a short one where the broker refused the wanted one."""
        return short_client_id(wanted) if self._has_short_ids else wanted

    def subscription(self, topic_filter: str) -> str:
        """The filter to subscribe to: without `$share` where the broker does not share."""
        plain = without_share(topic_filter)
        if self.has_shared or plain == topic_filter:
            return topic_filter
        self._say_no_sharing()  # a device, which shares nothing, does not say it
        return plain

    def grants(self, topic_filter: str) -> bool:
        """Whether the broker can grant a subscription: not with wildcards where it has none."""
        return self.has_wildcards or not {"+", "#"} & set(topic_filter.split("/"))

    def share_refused(self, topic_filter: str) -> bool:
        """Note that a subscription was refused; whether it can be made without `$share`."""
        if not self.has_shared or without_share(topic_filter) == topic_filter:
            return False
        self.has_shared = False
        self._say_no_sharing()
        return True

    def lost_before_answer(self, topic_filters: list[str]) -> None:
        """Note that the broker closed a connection instead of answering these subscriptions."""
        if not self.has_shared or all(without_share(name) == name for name in topic_filters):
            return
        self._cuts += 1
        if self._cuts == MAX_CUTS:
            self._say_no_sharing()

    def answered(self) -> None:
        """Note that all subscriptions are granted.

        The next connection asks for a share again: the losses may have had another reason.
        """
        self._cuts = 0 if self.has_shared else min(self._cuts, MAX_CUTS - 1)

    def _say_no_sharing(self) -> None:
        self._say(
            "has no shared subscriptions: submissions are subscribed to directly, so every gateway "
            "that serves there does each of them; let only one serve"
        )

    def _say_no_retain(self) -> None:
        self._say(
            "retains no messages: devices and gateways are known only from their next check-in on"
        )

    def _say_no_qos(self) -> None:
        self._say("takes QoS 0 only: messages may be lost and are sent again after a while")

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            log.warning("the broker at %s %s", self._address, text)
