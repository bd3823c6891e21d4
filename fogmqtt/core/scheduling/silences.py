"""Silences of devices that may be due to the network between: they are faults only if others speak.

When most devices fall silent within seconds of each other, none of them is to blame: a switch, an
access point or the broker failed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from msgspec import Struct

from fogmqtt.core.scheduling.device import DeviceState

#: Who speaks at most so many seconds before and after a silence was noticed speaks meanwhile: a
#: device checks in every 5 s.
_AROUND_S: Final = 6.0


class Silence(Struct, frozen=True):
    """A device did not answer, which was noticed at `at`."""

    device: DeviceState
    reason: str
    at: float
    #: The ids of the devices that needed a link and spoke shortly before.
    spoke_before: frozenset[str]


class Silences:
    """The silences that nobody has judged yet."""

    def __init__(self) -> None:
        self._open: list[Silence] = []

    def add(
        self, device: DeviceState, reason: str, devices: Iterable[DeviceState], now: float
    ) -> None:
        """Note that one of these devices did not answer."""
        spoke_before = frozenset(
            one.id
            for one in devices
            if _spoke_at(one, device) >= now - _AROUND_S and not one.is_local
        )
        self._open.append(Silence(device, reason, now, spoke_before))

    def faults(self, devices: Collection[DeviceState], now: float) -> list[Silence]:
        """Remove and return the silences that are faults, because others speak meanwhile.

        Silences that nothing was heard about in time are forgotten.
        """
        if not self._open:
            return []
        recent = [one for one in self._open if now - one.at <= _AROUND_S]
        oldest_at = min((one.at for one in recent), default=now)
        # A gateway may have hundreds of devices and silences. Only those who speak are compared.
        speakers = [one for one in devices if max(one.heard_at, one.checked_in_at) > oldest_at]
        able = {
            one.id for one in devices if one.online and not one.is_local and not one.quarantined
        }
        faults = [one for one in recent if _is_fault(one, speakers, able)]
        self._open = [one for one in recent if one not in faults]
        return faults

    def forget(self, device: DeviceState) -> None:
        """The device is not to blame, or was lost."""
        self._open = [one for one in self._open if one.device is not device]

    def clear(self) -> None:
        """The gateway lost the broker: nobody is to blame."""
        self._open.clear()


def _spoke_at(device: DeviceState, silent: DeviceState) -> float:
    """When a device last showed that its link works. The silent one does so by its check-ins."""
    if device is silent:
        return device.checked_in_at
    return max(device.heard_at, device.checked_in_at)


def _is_fault(silence: Silence, speakers: list[DeviceState], able: set[str]) -> bool:
    """Whether the device itself checks in, or most of the others that could take tiles speak."""
    silent = silence.device
    speaking = [
        one
        for one in speakers
        if one.id in silence.spoke_before and _spoke_at(one, silent) > silence.at
    ]
    if silent in speaking:
        return True
    others = len(able) - (silent.id in able)
    return 0 < others <= 2 * len(speaking)
