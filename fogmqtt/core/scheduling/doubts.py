"""Takes tiles back from devices that have never answered, when others have time for them.

A board may announce what it can do and never answer, as with a wrong access list. It always has
room, so without this rule each of its tiles would wait until its time to accept is over.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fogmqtt.core.scheduling.device import DeviceState
from fogmqtt.core.scheduling.failure_policy import is_suspect
from fogmqtt.core.scheduling.fleet import Fleet
from fogmqtt.core.scheduling.placement import may_have
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.state import Lease, TileState

#: If no device has answered yet and more rounds than this are left to try them all, each round is
#: shorter, …
_FEW_ROUNDS = 4
#: … down to this part: devices in a local network answer within it.
_LEAST_PART = 0.2

#: Takes these tiles back from the device.
Doubt = Callable[[DeviceState, list[Lease]], None]


class Doubts:
    """Watches devices that hold tiles and never answered. `doubt` takes tiles of one back."""

    def __init__(self, policy: Policy, fleet: Fleet, doubt: Doubt) -> None:
        self._policy = policy
        self._fleet = fleet
        self._doubt = doubt

    def take_back(self, now: float) -> None:
        """Take back what is overdue and could be elsewhere."""
        doubted = list(self._fleet.doubted.values())
        patience_s = self._patience_s() if doubted else 0.0
        for device in doubted:
            overdue = [one for one in _unaccepted(device) if one.sent_at + patience_s <= now]
            moved = [one for one in overdue if self._has_time_elsewhere(one.tile)]
            if moved:
                self._doubt(device, moved)

    def next_at(self, now: float) -> float | None:
        """When the next tile will be overdue. Those that are wait for room elsewhere."""
        # Most fleets have nobody to doubt, and this is asked after every event.
        if not self._fleet.doubted or not any(map(_is_better, self._fleet.with_room.values())):
            return None
        leases = [one for device in self._fleet.doubted.values() for one in _unaccepted(device)]
        patience_s = self._patience_s() if leases else 0.0
        overdue = (at for one in leases if now < (at := one.sent_at + patience_s) < math.inf)
        return min(overdue, default=None)

    def _patience_s(self) -> float:
        """How long a tile may stay unaccepted: less where many devices have to be tried."""
        fleet, policy = self._fleet, self._policy
        if fleet.proven:
            return policy.doubt_s
        ready = sum(device.ready for device in fleet.devices.values())
        held = sum(len(device.leases) for device in fleet.doubted.values())
        part = _FEW_ROUNDS * held / max(1, ready)
        return policy.doubt_s * min(1.0, max(part, _LEAST_PART))

    def _has_time_elsewhere(self, tile: TileState) -> bool:
        """Whether better devices have room for more tiles than wait already."""
        if tile.is_check_tile or is_suspect(tile, self._policy):
            return False
        room = -len(tile.job.waiting) - len(tile.job.with_exclusions)
        for device in self._fleet.with_room.values():
            if _is_better(device) and device.id not in tile.excluded and may_have(tile, device):
                room += self._fleet.window(device) - len(device.leases)
                if room > 0:
                    return True
        return False


def _unaccepted(device: DeviceState) -> list[Lease]:
    """What it has not accepted. One that answered before gets the usual time: its link is slow."""
    if device.has_answered:
        return []
    return [lease for lease in device.leases.values() if not lease.accepted]


def _is_better(device: DeviceState) -> bool:
    return not device.doubtful or _is_untried(device)


def _is_untried(device: DeviceState) -> bool:
    """Whether it has never been given a tile, or answered all of them."""
    return not device.leases and not device.silences
