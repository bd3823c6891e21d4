"""Work that a device which slowed down would hold up its job with.

What it has not begun is taken back, for those who have time for it. What it has in its hands is
copied to whoever is done with it much sooner, idle or not. Both come before tiles that wait, since
these can be done by anybody until the job should end, and the late ones are what ends it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fogmqtt.core.scheduling.device import DeviceState
from fogmqtt.core.scheduling.failure_policy import is_suspect, on_expiries
from fogmqtt.core.scheduling.fleet import RESTART_S, Fleet
from fogmqtt.core.scheduling.placement import Grant, best, may_have
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.state import ActiveJob, Lease

#: Among more busy devices than this something happens all the time.
_MANY = 64
#: The seconds until a job should be done.
Left = Callable[[ActiveJob], float]


class Relief:
    """To be asked before tiles are placed; `take_back` ends a lease and lets its tile wait."""

    def __init__(
        self,
        policy: Policy,
        fleet: Fleet,
        left: Left,
        grant: Grant,
        take_back: Callable[[Lease, str], None],
    ) -> None:
        self._policy = policy
        self._fleet = fleet
        self._left = left
        self._grant = grant
        self._take_back = take_back
        self._again_at = -math.inf
        #: Those that hold up their jobs, for as long as nobody has room for a copy.
        self._slow: list[DeviceState] = []

    def relieve(self, now: float) -> float | None:
        """Look for slow devices a few times in what counts as jitter, and at these each time.

        Returns when to look again, even if nothing happens by then.
        """
        if now >= self._again_at:
            self._again_at = now + self._policy.hedge_min_s / 4
            slowness = self._fleet.service_times.slowness
            self._slow = [one for one in self._fleet.busy.values() if slowness(one) > 1]
        self._slow = [device for device in self._slow if self._relieve(device)]
        return self._next_attempt(now)

    def _next_attempt(self, now: float) -> float | None:
        """When the next device will have slowed down by more than jitter."""
        busy = self._fleet.busy
        if len(busy) < 2 or len(busy) > _MANY:
            return None
        late_at = min(map(self._fleet.service_times.late_at, busy.values()))
        return max(late_at, now) + self._policy.hedge_min_s

    def _relieve(self, device: DeviceState) -> bool:
        """Whether to try again as soon as somebody has room."""
        leases = list(device.leases.values())
        if len(leases) > device.workers:
            self._relieve_of(device, leases[-1])
        in_service = [lease for lease in leases[: device.workers] if self._may_move(lease)]
        outlier = [lease for lease in in_service if self._is_stuck(device, lease)]
        for lease in outlier:
            self._take_back(lease, "got stuck")
        late = [one for one in in_service if one.live and self._late_s(device, one) > 0]
        waits = [self._copy(device, lease) for lease in late]
        return any(waits)

    def _relieve_of(self, device: DeviceState, lease: Lease) -> None:
        """Take back its youngest, one at a time: it shifts when the job should end."""
        requeue = sum(one.device == device.id for one in lease.tile.grants) > 1
        if requeue or not self._may_move(lease):
            return
        if self._late_s(device, lease) > self._elsewhere_s(lease):
            self._take_back(lease, "slowed down and had not begun")

    def _late_s(self, device: DeviceState, lease: Lease) -> float:
        """How long after the end of its job it would be done."""
        left_s = self._left(lease.tile.job) * (1 + self._policy.slack)
        return self._fleet.service_times.left_s(device, lease) - left_s - self._policy.hedge_gain_s

    def _is_stuck(self, device: DeviceState, lease: Lease) -> bool:
        """It alone keeps a worker from what the device can do, and to begin anew is quicker."""
        service_times, service_time = (
            self._fleet.service_times,
            device.service_times.get(lease.tile.job.kind),
        )
        if (
            service_time is None
            or service_time.outlier
            or not service_times.straggles(device, lease)
        ):
            return False
        if sum(one.device == device.id for one in lease.tile.grants) > 1:
            return False
        others = [one for one in self._fleet.able(lease.tile.job) if one is not device]
        if not others or any(one.id in self._fleet.idle for one in others):
            return False  # slow is better than nobody, and a copy better than a new beginning
        restart_s = RESTART_S + service_times.service_s(device, lease.tile)
        return service_times.left_s(device, lease) > self._policy.hedge_gain * restart_s

    def _may_move(self, lease: Lease) -> bool:
        tile = lease.tile
        if (
            tile.is_check_tile
            or len(tile.leases) > 1
            or on_expiries(tile, self._policy) is not None
        ):
            return False
        return not is_suspect(tile, self._policy)

    def _elsewhere_s(self, lease: Lease) -> float:
        """What its work would take the quickest other device."""
        tile, service_times = lease.tile, self._fleet.service_times
        return min(
            (
                service_times.rate_now(one, tile.job.kind) * tile.pixels
                for one in self._fleet.able(tile.job)
                if one.id != lease.device and one.id not in tile.excluded
            ),
            default=math.inf,
        )

    def _copy(self, device: DeviceState, lease: Lease) -> bool:
        """Whether there is nobody for it yet who will be: whoever would be first has no room."""
        tile, service_times, policy = lease.tile, self._fleet.service_times, self._policy
        unfit = tile.failed_on | tile.excluded | {device.id}
        able = [
            one
            for one in self._fleet.able(tile.job)
            if one.id not in unfit and may_have(tile, one) and not one.paused
        ]
        first = best(self._fleet, able, tile)
        if first is None or not service_times.measured(first, tile.job.kind):
            return False
        copy_s = service_times.finish_s(first, tile.job, tile.pixels)
        if service_times.left_s(device, lease) <= policy.hedge_gain * copy_s + policy.hedge_gain_s:
            return False
        if not self._fleet.has_bytes_for(tile):
            return True
        helper = best(self._fleet, (one for one in able if one.id in self._fleet.with_room), tile)
        about_s = copy_s + policy.hedge_gain_s
        if helper is None or service_times.finish_s(helper, tile.job, tile.pixels) > about_s:
            return True
        self._grant(tile, helper)
        return False
