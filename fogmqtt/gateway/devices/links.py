"""What is known of the way to each device: its codecs, and the rates of its link and of ours."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final, TypeVar

from fogmqtt.core.link_rate import LinkRate
from fogmqtt.transport.packet_limit import step_below

#: Devices, and tiles of one kind, that are remembered; their ids come from the network.
_REMEMBERED: Final = 4096
#: Seconds after which a tile that was not accepted has probably not arrived, …
_SILENCE_S: Final = 2.0
#: … and the number of such tiles in a row that are larger than all that arrived.
_SILENCES: Final = 2

_K = TypeVar("_K", bound=Hashable)
_T = TypeVar("_T")


class DeviceLinks:
    """Measures links, and remembers codecs. It belongs to the event loop.

    A tile goes from this gateway to the broker, which confirms it, and from there to the device,
    which accepts it.
    """

    def __init__(self) -> None:
        self._uplink = LinkRate()
        self._rates: dict[str, LinkRate] = {}
        self._codecs: dict[str, frozenset[str]] = {}
        #: Tiles that a device accepted before the broker's confirmation was handled.
        self._early: dict[Hashable, None] = {}
        #: Tiles that no device has accepted yet: their size, and when the broker confirmed them.
        self._unaccepted: dict[Hashable, tuple[int, float]] = {}
        self._largest_accepted = 0
        #: The sizes of tiles that were never accepted, since the last one of that size was.
        self._silent: list[int] = []

    def announced(self, device: str, codecs: Iterable[str]) -> None:
        """Take over the codecs that a device announces."""
        _put(self._codecs, device, frozenset(codecs))

    def knows(self, device: str, codec: str) -> bool:
        """Whether a device decodes and encodes a codec. Every device knows `raw`."""
        return codec == "raw" or codec in self._codecs.get(device, ())

    def bytes_per_s(self, device: str) -> float | None:
        """Return the rate of the whole way to a device; None if no part of it is known."""
        rate = self._rates.get(device)
        known = (self._uplink.bytes_per_s, None if rate is None else rate.bytes_per_s)
        return min((one for one in known if one is not None), default=None)

    @property
    def uplink_bytes_per_s(self) -> float | None:
        """The rate from this gateway to the broker; None if it is not known."""
        return self._uplink.bytes_per_s

    def published(self, key: Hashable, nbytes: int, at: float) -> None:
        """A tile was handed to the connection."""
        self._uplink.sent(key, nbytes, at)

    def confirmed(self, key: Hashable, device: str, nbytes: int, at: float) -> None:
        """The broker has a tile."""
        self._uplink.arrived(key, at)
        if key in self._early:
            del self._early[key]
            return
        self._unaccepted[key] = nbytes, at
        if device not in self._rates:
            _put(self._rates, device, LinkRate())
        self._rates[device].sent(key, nbytes, at)

    def accepted(self, key: Hashable, device: str, at: float) -> None:
        """The device has a tile."""
        nbytes, _ = self._unaccepted.pop(key, (0, 0.0))
        self._largest_accepted = max(nbytes, self._largest_accepted)
        self._silent = [one for one in self._silent if one > self._largest_accepted]
        rate = self._rates.get(device)
        if rate is None or not rate.arrived(key, at):
            _put(self._early, key, None)

    def lost(self, key: Hashable, device: str) -> None:
        """A tile is not expected at a device any more."""
        self._unaccepted.pop(key, None)
        if (rate := self._rates.get(device)) is not None:
            rate.lost(key)

    def packet_limit(self, key: Hashable, now: float) -> int | None:
        """Return a limit for packets if a tile was revoked because no device accepts its size.

        Mosquitto's `message_size_limit` drops a message that is too large, and with MQTT 3.1.1 it
        confirms it all the same. So the limit shows only in tiles that never arrive.
        """
        nbytes, confirmed_at = self._unaccepted.get(key, (0, now))
        if nbytes <= self._largest_accepted or now - confirmed_at < _SILENCE_S:
            return None
        self._silent.append(nbytes)
        if len(self._silent) < _SILENCES:
            return None
        limit = step_below(min(self._silent))
        self._silent.clear()
        return limit

    def broker_lost(self) -> None:
        """Nothing is on its way any more."""
        for rate in (self._uplink, *self._rates.values()):
            rate.reset()
        self._early.clear()
        self._unaccepted.clear()


def _put(known: dict[_K, _T], key: _K, value: _T) -> None:
    known.pop(key, None)
    known[key] = value
    if len(known) > _REMEMBERED:
        del known[next(iter(known))]
