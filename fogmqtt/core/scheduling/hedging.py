"""Which stragglers get a second copy on an idle device.

A tile is a straggler when it takes `hedge_factor` times what it should. And where an idle device
would be done with a copy well before the present holder, there is no need to wait for that. Where
both who have a tile would, the slower one makes room for a third.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from fogmqtt.core.scheduling.device import DeviceState
from fogmqtt.core.scheduling.failure_policy import is_suspect, on_expiries
from fogmqtt.core.scheduling.fleet import Fleet
from fogmqtt.core.scheduling.placement import Grant, best, may_have
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.state import Lease, TileState

#: What a late tile is expected to need grows by at most so many seconds in a second.
_GROWTH = 5.0
#: Who let the tile expire before gets a copy if anybody else would need so many times as long.
_MUCH = 4.0


class Hedging:
    """To be asked when no waiting tile can be placed; `revoke` takes a lease back."""

    def __init__(
        self, policy: Policy, fleet: Fleet, grant: Grant, revoke: Callable[[Lease], None]
    ) -> None:
        self._policy = policy
        self._fleet = fleet
        self._service_times = fleet.service_times
        self._grant = grant
        self._revoke = revoke
        self._again_at = -math.inf

    def hedge(self, now: float) -> float | None:
        """Grant second copies. Returns when to ask again, even if nothing happens by then."""
        if not self._fleet.idle or not self._fleet.busy:
            return None
        # Every look costs O(devices). One later by a part of what counts as jitter is as good.
        if now < self._again_at:
            return self._again_at
        wakeups = [self._hedge(device, now) for device in list(self._fleet.busy.values())]
        due = min(
            (placement_timer for placement_timer in wakeups if placement_timer is not None),
            default=None,
        )
        rest_until = now + self._policy.hedge_min_s / 4
        self._again_at = rest_until if due is None else min(rest_until, due)
        return due

    def _hedge(self, device: DeviceState, now: float) -> float | None:
        """Copy what this device is late with; returns when it will be late with more."""
        for lease in self._open(device):
            if self._late_at(device, lease) <= now:
                self._copy(lease)
        # The youngest would be done last. Where a copy of it does not pay, none does.
        for lease in reversed(self._open(device)):
            if self._pays_at(device, lease, now) <= now:
                self._copy(lease)
            elif len(lease.tile.leases) == 1:
                break
        wakeups = [
            min(self._late_at(device, lease), self._pays_at(device, lease, now))
            for lease in self._open(device)
        ]
        return min((at for at in wakeups if now < at < math.inf), default=None)

    def _open(self, device: DeviceState) -> list[Lease]:
        """What may get a copy, or another one."""
        return [lease for lease in device.leases.values() if self._may_be_copied(lease.tile)]

    def _may_be_copied(self, tile: TileState) -> bool:
        """What hung too often ends with its last lease; a suspect may not take many with it."""
        if on_expiries(tile, self._policy) is not None:
            return False
        return len(tile.leases) == 1 or not is_suspect(tile, self._policy)

    def _late_at(self, device: DeviceState, lease: Lease) -> float:
        if len(lease.tile.leases) > 1 or not lease.is_sent:
            return math.inf
        expected_s = self._service_times.remaining_s(device, lease)
        if expected_s == 0:
            expected_s = self._policy.first_lease_s / self._policy.lease_factor
        late_s = max(self._policy.hedge_min_s, self._policy.hedge_factor * expected_s)
        return device.freed_at(lease) + late_s

    def _pays_at(self, device: DeviceState, lease: Lease, now: float) -> float:
        """When a copy may be there well before the original; now, if one sent now should."""
        helper = self._helper(lease)
        if helper is None or not self._service_times.measured(device, lease.tile.job.kind):
            return math.inf
        copy_s = self._service_times.finish_s(helper, lease.tile.job, lease.tile.pixels)
        enough_s = self._policy.hedge_gain * copy_s + self._policy.hedge_gain_s
        left_s = min(self._left_s(one) for one in lease.tile.leases)
        if left_s > enough_s:
            return now
        return max(self._service_times.late_at(device), now + (enough_s - left_s) / _GROWTH)

    def _left_s(self, lease: Lease) -> float:
        return self._service_times.left_s(self._fleet.devices[lease.device], lease)

    def _copy(self, lease: Lease) -> None:
        tile, helper = lease.tile, self._helper(lease)
        if helper is None or not self._fleet.has_bytes_for(tile):
            return
        if len(tile.leases) > 1:
            self._revoke(max(tile.leases, key=self._left_s))
        self._grant(tile, helper)

    def _helper(self, lease: Lease) -> DeviceState | None:
        """Who would be done with a copy first; somebody who let the tile expire, if need be."""
        tile = lease.tile
        able = [one for one in self._able(lease) if one.id not in tile.failed_on]
        other = best(self._fleet, able, tile)
        if other is None or other.id not in tile.excluded:
            return other
        first = best(self._fleet, (one for one in able if one.id not in tile.excluded), tile)
        if first is None:
            return other
        much_s = _MUCH * self._service_times.finish_s(other, tile.job, tile.pixels)
        return (
            other if self._service_times.finish_s(first, tile.job, tile.pixels) > much_s else first
        )

    def _able(self, lease: Lease) -> Iterator[DeviceState]:
        tile, exclusive = lease.tile, is_suspect(lease.tile, self._policy)
        for device in self._fleet.idle.values():
            if tile in device.leases or (exclusive and device.leases):
                continue
            # Somebody who had it makes room for whoever is new to it, or they would take turns.
            if len(tile.leases) > 1 and any(one.device == device.id for one in tile.grants):
                continue
            if may_have(tile, device):
                yield device
