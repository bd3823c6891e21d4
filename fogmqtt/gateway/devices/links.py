"""What is known of the way to each device: its codecs, and the rates of its link and of ours."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final, TypeVar

from fogmqtt.core.link_rate import LinkRate

#: Devices that are remembered; ids come from the network.
_REMEMBERED: Final = 4096

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
        self._early: set[Hashable] = set()

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
            self._early.discard(key)
            return
        if device not in self._rates:
            _put(self._rates, device, LinkRate())
        self._rates[device].sent(key, nbytes, at)

    def accepted(self, key: Hashable, device: str, at: float) -> None:
        """The device has a tile."""
        rate = self._rates.get(device)
        if (rate is None or not rate.arrived(key, at)) and len(self._early) < _REMEMBERED:
            self._early.add(key)

    def lost(self, key: Hashable, device: str) -> None:
        """A tile is not expected at a device any more."""
        if (rate := self._rates.get(device)) is not None:
            rate.lost(key)

    def broker_lost(self) -> None:
        """Nothing is on its way any more."""
        for rate in (self._uplink, *self._rates.values()):
            rate.reset()
        self._early.clear()


def _put(known: dict[str, _T], device: str, value: _T) -> None:
    known.pop(device, None)
    known[device] = value
    if len(known) > _REMEMBERED:
        del known[next(iter(known))]
