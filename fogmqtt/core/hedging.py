"""Which stragglers get a second copy on an idle device.

A tile is a straggler when it takes `hedge_factor` times what it should. And where an idle device
would be done with a copy well before the present holder, there is no need to wait for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from fogmqtt.core.fleet import Device, Fleet
from fogmqtt.core.ledger import Lease
from fogmqtt.core.placement import Grant, best
from fogmqtt.core.policy import Policy
from fogmqtt.core.verdict import is_suspect


class Hedging:
    """To be asked when no waiting tile can be placed."""

    def __init__(self, policy: Policy, fleet: Fleet, grant: Grant) -> None:
        self._policy = policy
        self._fleet = fleet
        self._grant = grant
        self._again_at = -math.inf

    def hedge(self, now: float) -> float | None:
        """Grant second copies. Returns when to ask again, even if nothing happens by then."""
        if not self._fleet.idle or not self._fleet.busy:
            return None
        # Every look costs O(devices). One later by a part of what counts as jitter is as good.
        if now < self._again_at:
            return self._again_at
        looks = [self._hedge(device, now) for device in list(self._fleet.busy.values())]
        late_at = min((look for look in looks if look is not None), default=None)
        rest_until = now + self._policy.hedge_min_s / 4
        self._again_at = rest_until if late_at is None else min(rest_until, late_at)
        return late_at

    def _hedge(self, device: Device, now: float) -> float | None:
        """Copy what this device is late with; returns when it will be late with more."""
        for lease in self._single(device):
            if self._late_at(lease) > now:
                break
            self._copy(lease)
        # The youngest would be done last. Where a copy of it does not pay, none does.
        for lease in reversed(self._single(device)):
            if not self._pays(lease, now):
                break
            self._copy(lease)
        due = (self._late_at(lease) for lease in self._single(device))
        return min((late_at for late_at in due if late_at > now), default=None)

    def _single(self, device: Device) -> list[Lease]:
        """What nobody else has, and may have: a suspect is not sent to two devices."""
        return [
            lease
            for lease in device.leases.values()
            if len(lease.tile.leases) == 1 and not is_suspect(lease.tile, self._policy)
        ]

    def _late_at(self, lease: Lease) -> float:
        expected_s = self._fleet.remaining_s(lease)
        if expected_s == 0:
            expected_s = self._policy.first_lease_s / self._policy.lease_factor
        late_s = max(self._policy.hedge_min_s, self._policy.hedge_factor * expected_s)
        return self._fleet.devices[lease.device].freed_at(lease) + late_s

    def _pays(self, lease: Lease, now: float) -> bool:
        """A copy sent now should be there well before the original."""
        device = self._fleet.devices[lease.device]
        slower = self._fleet.slowness(device, now)
        left_s = device.freed_at(lease) + slower * self._fleet.remaining_s(lease) - now
        helper = self._helper(lease)
        if helper is None:
            return False
        copy_s = self._fleet.service_s(helper, lease.tile)
        return left_s > self._policy.hedge_gain * copy_s + self._policy.hedge_gain_s

    def _copy(self, lease: Lease) -> None:
        helper = self._helper(lease)
        if helper is not None:
            self._grant(lease.tile, helper)

    def _helper(self, lease: Lease) -> Device | None:
        """Who would be done with a copy first; somebody who let the tile expire, if need be."""
        tile = lease.tile
        unfit = tile.failed_on | tile.taboo
        able = [one for one in self._able(lease) if one.id not in unfit]
        willing = [one for one in able if one.id not in tile.shunned]
        return best(self._fleet, willing or able, tile)

    def _able(self, lease: Lease) -> Iterator[Device]:
        tile = lease.tile
        for device in self._fleet.idle.values():
            if tile not in device.leases and tile.job.operators <= device.operators:
                yield device
