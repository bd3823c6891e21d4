"""Which tiles get a copy on another device, or are taken back, because they are late.

One rule decides: a tile moves when it is expected to need `hedge_gain` times as long where it is as
elsewhere, and `hedge_gain_s` more. The rule is applied twice. Before placement, to tiles that would
end later than their job: tiles that wait can be done by any device until then. After placement, to
all tiles, for devices that are idle because no waiting tile suits them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from fogmqtt.core.scheduling.device import DeviceState
from fogmqtt.core.scheduling.failure_policy import is_suspect, on_expiries, on_losses
from fogmqtt.core.scheduling.fleet import RESTART_S, Fleet
from fogmqtt.core.scheduling.placement import Grant, best, may_have
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.state import ActiveJob, Lease

#: The expected remaining time of a late tile grows by at most this many seconds per second.
_GROWTH = 5.0
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
        take_back: Callable[[Lease, str], None],
        is_link_confirmed: Callable[[], bool],
    ) -> None:
        self._policy = policy
        self._fleet = fleet
        self._times = fleet.service_times
        self._job_left_s = left_s
        self._grant = grant
        self._take_back = take_back
        self._is_link_confirmed = is_link_confirmed
        #: Every check costs O(devices), so it is made a few times within jitter.
        self._pause_s = policy.hedge_min_s / 4
        self._next_slow_check = self._next_check = -math.inf
        #: Slow devices with a tile whose copy waits until the best device has room.
        self._slow: list[DeviceState] = []

    def before_placement(self, now: float) -> None:
        """Move tiles of devices that slowed down where they would delay their job."""
        if now >= self._next_slow_check:
            self._next_slow_check = now + self._pause_s
            self._slow = [one for one in self._fleet.busy.values() if self._times.slowness(one) > 1]
        self._slow = [device for device in self._slow if self._move_from(device)]

    def after_placement(self, now: float) -> float | None:
        """Copy what idle devices would do faster. Returns when to check again."""
        busy, idle = self._fleet.busy, self._fleet.idle
        if not busy or len(busy) + len(idle) < 2 or (not idle and len(busy) > _MANY):
            return None
        if now < self._next_check:
            return self._next_check
        self._next_check = now + self._pause_s
        dues = [self._copy_from(device, now) for device in list(busy.values())]
        due = max(min(dues), self._next_check)
        return due if due < math.inf else None

    def _move_from(self, device: DeviceState) -> bool:
        """Returns whether a copy should be made as soon as its device has room."""
        leases = list(device.leases.values())
        begun, queued = leases[: device.workers], leases[device.workers :]
        # Only the youngest of the others: that changes when the job should end.
        for lease in filter(self._may_take_back, queued[-1:]):
            if self._better_device(lease) is not None and self._is_link_confirmed():
                self._take_back(lease, "slowed down and had not begun")
        # If more than one is that late, the device is slow for good.
        stragglers = [one for one in begun if self._times.straggles(device, one)]
        for lease in filter(self._may_take_back, stragglers if len(stragglers) == 1 else ()):
            if self._is_stuck(device, lease) and self._is_link_confirmed():
                self._take_back(lease, "got stuck")
        waits = [self._copy_late(lease) for lease in begun if lease.live]
        return any(waits)

    def _better_device(self, lease: Lease) -> DeviceState | None:
        """Who should have the tile instead, with room or without, if it delays its job."""
        if not self._delays_job(lease):
            return None
        able = (one for one in self._fleet.able(lease.tile.job) if not one.paused)
        helper = self._helper(lease, able)
        return helper if helper is not None and self._missing_s(lease, helper) < 0 else None

    def _is_stuck(self, device: DeviceState, lease: Lease) -> bool:
        """Whether the device would be done earlier if its worker began again."""
        others = [one for one in self._fleet.able(lease.tile.job) if one is not device]
        # A slow device is better than none, and a copy is better than a new start.
        if not others or any(one.id in self._fleet.idle for one in others):
            return False
        again_s = RESTART_S + self._times.service_s(device, lease.tile)
        return self._left_s(lease) > self._policy.hedge_gain * again_s + self._policy.hedge_gain_s

    def _may_move(self, lease: Lease) -> bool:
        """Whether it is an ordinary tile, which killed nobody and has no copy."""
        tile = lease.tile
        ordinary = not tile.is_check_tile and not is_suspect(tile, self._policy)
        return ordinary and self._may_copy(lease)

    def _may_take_back(self, lease: Lease) -> bool:
        """Whether it may move, and was not taken back from this device before."""
        held = sum(one.device == lease.device for one in lease.tile.grants)
        return held == 1 and self._may_move(lease)

    def _copy_late(self, lease: Lease) -> bool:
        """Copy a tile that delays its job. Returns whether the best device has no room yet."""
        helper = self._better_device(lease) if self._may_move(lease) else None
        if helper is None:
            return False
        if helper.id not in self._fleet.with_room or not self._fleet.has_bytes_for(lease.tile):
            return True
        if not self._is_link_confirmed():
            return True
        self._grant(lease.tile, helper)
        return False

    def _copy_from(self, device: DeviceState, now: float) -> float:
        """Copy tiles of a device to idle ones. Returns when another copy may be worth it."""
        for lease in reversed(list(device.leases.values())):
            helper = self._helper(lease, self._fleet.idle.values())
            if helper is None or not self._may_copy(lease):
                continue
            missing_s = self._missing_s(lease, helper)
            if missing_s >= 0:
                # The youngest is done last: if its copy is not worth it, no other is.
                return max(self._times.slow_at(device), now + missing_s / _GROWTH)
            if self._fleet.has_bytes_for(lease.tile) and self._is_link_confirmed():
                self._grant(lease.tile, helper)
        # While the device is slow, its tiles may become worth a copy at any moment.
        return max(self._times.slow_at(device), now + self._policy.hedge_min_s)

    def _missing_s(self, lease: Lease, helper: DeviceState) -> float:
        """The rule: how much longer the tile must take for a copy; negative if it is worth it."""
        copy_s = self._times.finish_s(helper, lease.tile.job, lease.tile.pixels)
        return self._policy.hedge_gain * copy_s + self._policy.hedge_gain_s - self._left_s(lease)

    def _left_s(self, lease: Lease) -> float:
        return self._times.left_s(self._fleet.devices[lease.device], lease)

    def _delays_job(self, lease: Lease) -> bool:
        job_s = self._job_left_s(lease.tile.job) * (1 + self._policy.slack)
        return self._left_s(lease) > job_s + self._policy.hedge_gain_s

    def _may_copy(self, lease: Lease) -> bool:
        """Whether it has no copy, and not so many faults that it ends with its last lease."""
        tile = lease.tile
        if not (self._policy.hedging and len(tile.leases) == 1 and lease.is_sent):
            return False
        return not (on_expiries(tile, self._policy) or on_losses(tile, self._fleet, self._policy))

    def _helper(self, lease: Lease, devices: Iterable[DeviceState]) -> DeviceState | None:
        """The device that would finish a copy first."""
        fit = (one for one in devices if self._may_help(lease, one))
        return best(self._fleet, fit, lease.tile)

    def _may_help(self, lease: Lease, device: DeviceState) -> bool:
        tile = lease.tile
        if device.id == lease.device or device.id in tile.failed_on:
            return False
        # Two mute devices would copy from each other for ever, and nobody else would get the tile.
        if device.silences:
            return False
        # With one copy after the other it would never be idle, and the suspect tile would wait on.
        if device is self._fleet.reserved:
            return False
        is_free = not device.leases or not is_suspect(tile, self._policy)
        return is_free and may_have(tile, device) and self._fleet.may_try(tile.job, device)
