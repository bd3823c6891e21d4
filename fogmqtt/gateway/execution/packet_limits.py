"""How large a message may be: by our configuration, by the broker, and by what never arrived."""

from __future__ import annotations

import logging
from typing import Final

from fogmqtt.config import WireSettings
from fogmqtt.errors import TooLarge
from fogmqtt.gateway.broker_link import BrokerLink
from fogmqtt.gateway.execution.stage_run import MessageLimits

log = logging.getLogger(__name__)

#: Bytes below the broker's limit that are kept free for a message's topic and properties.
PACKET_ROOM: Final = 1024
#: The largest packet of MQTT.
_MQTT_BYTES: Final = 256_000_000
#: A device's limit for packets below this is not believed.
_LEAST_PACKET_BYTES: Final = 16_384


class PacketLimits:
    """The limits of one gateway. The broker's also applies to results, which devices find out."""

    def __init__(self, link: BrokerLink, wire: WireSettings) -> None:
        self._link = link
        self._wire = wire
        #: The limit that devices showed: a result did not fit, or tiles did not arrive.
        self._learned_bytes: int | None = None

    def limits(self, *, whole: bool = False) -> MessageLimits:
        """Return the limits of a message: ours, or the broker's if that is lower.

        `whole`: for an image that is not cut, to which only MQTT's own and the broker's limit
        apply.
        """
        packets = (self._link.max_packet_bytes, self._learned_bytes)
        ours = _MQTT_BYTES if whole else self._wire.max_message_bytes
        limits = (packet - PACKET_ROOM for packet in packets if packet is not None)
        lowest = min([ours, *limits])
        configured = ours if lowest < ours else None
        return MessageLimits(lowest, self._wire.encoding, configured_bytes=configured)

    def check(self, name: str, size: int) -> None:
        """Raise TooLarge if the broker seems not to take a tile of so many bytes."""
        limit = self._link.max_packet_bytes
        if limit is not None and size > limit - PACKET_ROOM // 2:
            raise TooLarge(
                f"tile {name} has {size} bytes, but the broker's limit "
                f"for a packet is {limit}, or seems to be; make tiles smaller "
                "(wire.max_message_bytes) or raise the broker's max_packet_size"
            )

    def refused(self, limit: int, result_bytes: float) -> bool:
        """Take over the limit of a device that cannot send a result. False if it is no reason."""
        if not _LEAST_PACKET_BYTES <= limit < result_bytes + PACKET_ROOM:
            return False
        self._learned_bytes = min(limit, self._learned_bytes or limit)
        return True

    def silent(self, limit: int) -> bool:
        """Take over a limit above which no tile arrives. False if tiles are smaller already."""
        if limit >= self.limits().message_bytes + PACKET_ROOM:
            return False
        self._learned_bytes = limit
        log.warning(
            "the broker confirms tiles that no device gets, larger than all that arrived: tiles "
            "and results stay below %d bytes from now on; raise the broker's message_size_limit",
            limit,
        )
        return True
