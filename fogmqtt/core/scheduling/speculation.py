"""When a second copy of a tile is worth its cost, and when to move a tile that was not begun.

One rule decides: a tile moves when it is expected to need `hedge_gain` times as long where it is as
elsewhere, and by more than `hedge_gain_s`. A tile that has taken `hedge_factor` times as long as it
should gets a copy even where nothing can be estimated.

The rule is applied twice. Before placement, to tiles of devices that slowed down and would delay
the end of their jobs: waiting tiles can be done by any device until then. After placement, for
devices that are idle because no waiting tile suits them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from fogmqtt.core.scheduling.device import DeviceState
from fogmqtt.core.scheduling.failure_policy import is_suspect, on_expiries
from fogmqtt.core.scheduling.fleet import RESTART_S, Fleet
from fogmqtt.core.scheduling.placement import Grant, best, may_have
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.state import ActiveJob, Lease, TileState

#: The expected remaining time of a late tile grows by at most this many seconds per second.
_GROWTH = 5.0
#: A device that let the tile expire gets a copy if others would need this many times as long.
_MUCH = 4.0
#: Among more busy devices than this, events are so frequent that no timer is needed.
_MANY = 64


class Speculation:
    """Grants copies and takes tiles back. `left_s` estimates the time until a job is done."""

    def __init__(
        self,
        policy: Policy,
        fleet: Fleet,
        left_s: Callable[[ActiveJob], float],
        grant: Grant,
        revoke: Callable[[Lease], None],
        take_back: Callable[[Lease, str], None],
    ) -> None:
        self._policy = policy
        self._fleet = fleet
        self._times = fleet.service_times
        self._job_left_s = left_s
        self._grant = grant
        self._revoke = revoke
        self._take_back = take_back
        #: Every check costs O(devices), so both kinds are made a few times within jitter.
        self._pause_s = policy.hedge_min_s / 4
        self._next_slow_check = self._next_idle_check = -math.inf
        #: Slow devices with a tile that waits for a device with room.
        self._slow: list[DeviceState] = []

    # -- before placement: devices that slowed down ---------------------------------------------

    def move_from_slow_devices(self, now: float) -> float | None:
        """Move what would delay its job. Returns when to check again, whatever happens."""
        busy = self._fleet.busy
        if now >= self._next_slow_check:
            self._next_slow_check = now + self._pause_s
            self._slow = [one for one in busy.values() if self._times.slowness(one) > 1]
        self._slow = [device for device in self._slow if self._move_from(device)]
        if not 2 <= len(busy) <= _MANY:
            return None
        return max(min(map(self._times.late_at, busy.values())), now) + self._policy.hedge_min_s

    def _move_from(self, device: DeviceState) -> bool:
        """Returns whether a tile should be copied as soon as a device has room."""
        leases = list(device.leases.values())
        if len(leases) > device.workers:
            self._move_waiting(device, leases[-1])
        in_service = [lease for lease in leases[: device.workers] if self._may_move(lease)]
        for lease in in_service:
            if self._is_stuck(device, lease):
                self._take_back(lease, "got stuck")
        late = [one for one in in_service if one.live and self._late_s(one) > 0]
        waits = [self._copy_late(lease) for lease in late]
        return any(waits)

    def _move_waiting(self, device: DeviceState, lease: Lease) -> None:
        """Take back the youngest tile only: that changes when the job should end."""
        if _was_there_before(lease) or not self._may_move(lease):
            return
        tile = lease.tile
        others = (
            self._times.rate_now(one, tile.job.kind) * tile.pixels
            for one in self._fleet.able(tile.job)
            if one is not device and one.id not in tile.excluded
        )
        if self._late_s(lease) > min(others, default=math.inf):
            self._take_back(lease, "slowed down and had not begun")

    def _is_stuck(self, device: DeviceState, lease: Lease) -> bool:
        """Whether a usually fast device should restart its worker, and nobody is idle."""
        known = device.service_times.get(lease.tile.job.kind)
        if known is None or known.outlier or not self._times.straggles(device, lease):
            return False
        others = [one for one in self._fleet.able(lease.tile.job) if one is not device]
        # A slow device is better than none, and a copy is better than a new start.
        if not others or any(one.id in self._fleet.idle for one in others):
            return False
        restart_s = RESTART_S + self._times.service_s(device, lease.tile)
        return not _was_there_before(lease) and self._is_worth(self._left_s(lease), restart_s)

    def _copy_late(self, lease: Lease) -> bool:
        """Copy the tile; returns whether the best device for that has no room yet."""
        tile = lease.tile
        able = [one for one in self._fleet.able(tile.job) if not one.paused]
        first = self._helper(lease, able)
        if first is None or not self._times.measured(first, tile.job.kind):
            return False
        copy_s = self._times.finish_s(first, tile.job, tile.pixels)
        if not self._is_worth(self._left_s(lease), copy_s):
            return False
        helper = self._helper(lease, [one for one in able if one.id in self._fleet.with_room])
        latest_s = copy_s + self._policy.hedge_gain_s
        if helper is None or self._times.finish_s(helper, tile.job, tile.pixels) > latest_s:
            return True
        return not self._copy(lease, helper)

    def _late_s(self, lease: Lease) -> float:
        """How long after the end of its job the tile would be done."""
        job_s = self._job_left_s(lease.tile.job) * (1 + self._policy.slack)
        return self._left_s(lease) - job_s - self._policy.hedge_gain_s

    def _may_move(self, lease: Lease) -> bool:
        tile = lease.tile
        return not tile.is_check_tile and len(tile.leases) == 1 and not self._is_risky(tile)

    # -- after placement: idle devices ----------------------------------------------------------

    def copy_to_idle_devices(self, now: float) -> float | None:
        """Copy what idle devices would do faster. Returns when to check again."""
        if not self._fleet.idle or not self._fleet.busy:
            return None
        if now < self._next_idle_check:
            return self._next_idle_check
        wakeups = [self._copy_from(device, now) for device in list(self._fleet.busy.values())]
        due = min(wakeups, default=math.inf)
        self._next_idle_check = min(now + self._pause_s, due)
        return due if due < math.inf else None

    def _copy_from(self, device: DeviceState, now: float) -> float:
        """Copy what this device is late with; returns when it will be late with more."""
        for lease in self._copyable(device):
            if self._overdue_at(device, lease) <= now:
                self._copy_to_idle(lease)
        # The youngest would be done last: if its copy is not worth it, no other is.
        for lease in reversed(self._copyable(device)):
            if self._worth_at(device, lease, now) <= now:
                self._copy_to_idle(lease)
            elif len(lease.tile.leases) == 1:
                break
        times = (
            min(self._overdue_at(device, lease), self._worth_at(device, lease, now))
            for lease in self._copyable(device)
        )
        return min((at for at in times if at > now), default=math.inf)

    def _copyable(self, device: DeviceState) -> list[Lease]:
        """Tiles that may get a copy, or another one in the place of the slower lease."""
        leases = device.leases.values()
        return [one for one in leases if len(one.tile.leases) == 1 or not self._is_risky(one.tile)]

    def _overdue_at(self, device: DeviceState, lease: Lease) -> float:
        """When the tile will have taken several times as long as it should."""
        if len(lease.tile.leases) > 1 or not lease.is_sent or self._is_hopeless(lease.tile):
            return math.inf
        expected_s = self._times.remaining_s(device, lease)
        expected_s = expected_s or self._policy.first_lease_s / self._policy.lease_factor
        late_s = max(self._policy.hedge_min_s, self._policy.hedge_factor * expected_s)
        return device.freed_at(lease) + late_s

    def _worth_at(self, device: DeviceState, lease: Lease, now: float) -> float:
        """When a copy on an idle device may be worth it; `now` if it is already."""
        tile, helper = lease.tile, self._helper(lease, self._fleet.idle.values())
        if helper is None or not self._times.measured(device, tile.job.kind):
            return math.inf
        copy_s = self._times.finish_s(helper, tile.job, tile.pixels)
        left_s = min(map(self._left_s, tile.leases))
        if self._is_worth(left_s, copy_s):
            return now
        missing_s = self._policy.hedge_gain * copy_s + self._policy.hedge_gain_s - left_s
        return max(self._times.late_at(device), now + missing_s / _GROWTH)

    def _copy_to_idle(self, lease: Lease) -> None:
        helper = self._helper(lease, self._fleet.idle.values())
        if helper is not None:
            self._copy(lease, helper)

    # -- both -----------------------------------------------------------------------------------

    def _is_worth(self, left_s: float, elsewhere_s: float) -> bool:
        """The rule: whether a tile should move."""
        return left_s > self._policy.hedge_gain * elsewhere_s + self._policy.hedge_gain_s

    def _is_hopeless(self, tile: TileState) -> bool:
        """It hung so often that it ends with its last lease."""
        return on_expiries(tile, self._policy) is not None

    def _is_risky(self, tile: TileState) -> bool:
        """It hung too often, or it may kill its devices."""
        return self._is_hopeless(tile) or is_suspect(tile, self._policy)

    def _left_s(self, lease: Lease) -> float:
        return self._times.left_s(self._fleet.devices[lease.device], lease)

    def _helper(self, lease: Lease, devices: Iterable[DeviceState]) -> DeviceState | None:
        """The device that would finish a copy first; one that let it expire only if need be."""
        tile = lease.tile
        fit = [one for one in devices if self._may_copy(tile, one)]
        first = best(self._fleet, fit, tile)
        fresh = best(self._fleet, (one for one in fit if one.id not in tile.excluded), tile)
        if first is None or fresh is None:
            return first
        much_s = _MUCH * self._times.finish_s(first, tile.job, tile.pixels)
        return first if self._times.finish_s(fresh, tile.job, tile.pixels) > much_s else fresh

    def _may_copy(self, tile: TileState, device: DeviceState) -> bool:
        # A second lease is replaced only by a device that never had the tile: no taking turns.
        held = tile.grants if len(tile.leases) > 1 else tile.leases
        if device.id in tile.failed_on or any(one.device == device.id for one in held):
            return False
        # With one copy after the other it would never be idle, and the suspect tile would wait on.
        if device is self._fleet.reserved:
            return False
        is_free = not device.leases or not is_suspect(tile, self._policy)
        return is_free and may_have(tile, device)

    def _copy(self, lease: Lease, helper: DeviceState) -> bool:
        tile = lease.tile
        if not self._policy.hedging or not self._fleet.has_bytes_for(tile):
            return False
        if self._is_hopeless(tile):
            return False
        if len(tile.leases) > 1:
            self._revoke(max(tile.leases, key=self._left_s))
        self._grant(tile, helper)
        return True


def _was_there_before(lease: Lease) -> bool:
    """Whether the device had the tile under an earlier lease."""
    return sum(one.device == lease.device for one in lease.tile.grants) > 1
