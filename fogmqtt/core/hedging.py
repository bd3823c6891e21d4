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

    @staticmethod
    def _single(device: Device) -> list[Lease]:
        """What nobody else has, and may have: a suspect is not sent to two devices."""
        leases = device.leases.values()
        return [lease for lease in leases if len(lease.tile.leases) == 1 and not lease.alone]

    def _late_at(self, lease: Lease) -> float:
        expected_s = self._fleet.remaining_s(lease)
        if expected_s == 0:
            expected_s = self._policy.first_lease_s / self._policy.lease_factor
        late_s = max(self._policy.hedge_min_s, self._policy.hedge_factor * expected_s)
        return self._fleet.devices[lease.device].freed_at(lease) + late_s

    def _pays(self, lease: Lease, now: float) -> bool:
        """A copy sent now should be there well before the original."""
        begun_at = self._fleet.devices[lease.device].freed_at(lease)
        left_s = begun_at + self._fleet.remaining_s(lease) - now
        if left_s <= self._policy.hedge_min_s:
            return False
        helper = self._helper(lease)
        if helper is None:
            return False
        copy_s = self._fleet.service_s(helper, lease.tile)
        return left_s > max(self._policy.hedge_factor * copy_s, copy_s + self._policy.hedge_min_s)

    def _copy(self, lease: Lease) -> None:
        helper = self._helper(lease)
        if helper is not None:
            self._grant(lease.tile, helper)

    def _helper(self, lease: Lease) -> Device | None:
        return best(self._fleet, self._able(lease), lease.tile)

    def _able(self, lease: Lease) -> Iterator[Device]:
        tile = lease.tile
        not_to = tile.shunned | tile.taboo
        for device in self._fleet.idle.values():
            # Not to whom it was given already, and not to whom it failed.
            if tile in device.leases or device.id in not_to:
                continue
            if tile.job.operators <= device.operators:
                yield device
