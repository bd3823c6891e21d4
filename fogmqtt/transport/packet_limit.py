"""The largest packet that a broker takes, learned where the broker does not announce it.

An MQTT 5 broker announces its limit. A 3.1.1 broker closes the connection of a client that exceeds
it, or reads no more. So the loss of a connection is a sign if a packet was on its way that is
larger than every packet that the broker has acknowledged. If the broker cannot be reached after
that, it has ended or the network has failed, and the loss says nothing. That may also have happened
for a moment only, so two limits are learned:

- The soft limit after one loss. Tiles and results keep it, since they can be made smaller.
- The hard limit after two losses. No larger packet is sent, so that one packet that cannot be made
  smaller does not end every connection.

Pure logic, without I/O. Sizes are in bytes. The limits may be read on any thread; the caller guards
everything else.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

#: Soft limits, the limits of common brokers first. A soft limit is the next one below the packet.
_STEPS: Final = (1_048_576, 262_144, 131_072, 65_536, 32_768, 16_384)
#: No broker of use refuses smaller packets, so they say nothing.
_LEAST: Final = _STEPS[-1]
#: Seconds after which a later connection begins without limits: the broker's may have changed.
_FORGET_S: Final = 3600.0
#: The losses that are remembered.
_REMEMBERED: Final = 16


def step_below(nbytes: int) -> int:
    """Return the next limit of common brokers below a size."""
    return next((step for step in _STEPS if step < nbytes), _LEAST)


class _Packet(Struct, frozen=True):
    nbytes: int
    #: Whether the broker acknowledges it. One of QoS 0 is confirmed by what follows it.
    has_ack: bool


class PacketLimit:
    """Learns the limit of one broker over all connections of one client."""

    def __init__(self) -> None:
        self._announced: int | None = None
        #: Packets on their way on this connection, by packet id, in the order of sending.
        self._in_flight: dict[int, _Packet] = {}
        self._acknowledged = 0
        #: The largest packets on their way at losses, smallest first. The limit is below each.
        self._suspected: tuple[int, ...] = ()
        #: The same before the last loss, while that may have had another cause.
        self._suspected_before: tuple[int, ...] | None = None
        self._lost_at = 0.0

    @property
    def soft(self) -> int | None:
        """The limit for messages that can be made smaller; None if there is none."""
        suspected = self._suspected
        if not suspected:
            return self._announced
        learned = max(step_below(suspected[0]), self._acknowledged)
        return learned if self._announced is None else min(learned, self._announced)

    @property
    def hard(self) -> int | None:
        """The limit for all packets; None if there is none."""
        suspected = self._suspected
        if len(suspected) < 2:
            return self._announced
        learned = suspected[1] - 1
        return learned if self._announced is None else min(learned, self._announced)

    @property
    def is_announced(self) -> bool:
        """Whether the limits are what the broker announced."""
        return not self._suspected

    @property
    def waits_for_large(self) -> bool:
        """Whether the broker must acknowledge a packet that is larger than all before."""
        packets = self._in_flight.values()
        return any(one.has_ack and self._is_large(one.nbytes) for one in packets)

    @property
    def suspects_packet(self) -> bool:
        """Whether a loss at this moment may be due to the size of a packet."""
        return any(self._is_large(one.nbytes) for one in self._in_flight.values())

    def connected(self, announced: int | None, now: float) -> None:
        """Begin a connection."""
        self._announced = announced
        self._in_flight.clear()
        self._suspected_before = None
        if now - self._lost_at > _FORGET_S:
            self._suspected = ()

    def sent(self, packet_id: int, nbytes: int, *, has_ack: bool) -> None:
        """A packet is on its way. `has_ack`: the broker acknowledges it, since its QoS is not 0."""
        self._in_flight[packet_id] = _Packet(nbytes, has_ack)

    def acknowledged(self, packet_id: int) -> None:
        """The broker took a packet, and those of QoS 0 that were sent before it."""
        acknowledged = self._in_flight.get(packet_id)
        if acknowledged is None or not acknowledged.has_ack:
            return
        for key, packet in list(self._in_flight.items()):
            if key == packet_id or not packet.has_ack:
                del self._in_flight[key]
                self._acknowledged = max(self._acknowledged, packet.nbytes)
            if key == packet_id:
                break
        self._suspected = tuple(size for size in self._suspected if size > self._acknowledged)

    def lost(self, now: float, *, is_certain: bool = False) -> int | None:
        """The connection ended. `is_certain`: the broker said that a packet was too large.

        Returns the size of the packet that was too large, probably, if the soft limit is lower now.
        """
        largest = max((packet.nbytes for packet in self._in_flight.values()), default=0)
        before = self.soft
        self._in_flight.clear()
        if not self._is_large(largest):
            return None
        if not is_certain:
            self._suspected_before = self._suspected
        suspected = sorted((*self._suspected, *[largest] * (1 + is_certain)))
        self._suspected = tuple(suspected[:_REMEMBERED])
        self._lost_at = now
        return largest if self.soft != before else None

    def unreachable(self) -> bool:
        """The broker cannot be reached. Returns whether the last loss is not held against a packet
        any more.
        """
        if self._suspected_before is None:
            return False
        self._suspected, self._suspected_before = self._suspected_before, None
        return True

    def _is_large(self, nbytes: int) -> bool:
        return nbytes > max(self._acknowledged, _LEAST)
