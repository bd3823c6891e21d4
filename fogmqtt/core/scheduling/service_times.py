"""How fast devices are, and what follows from it: when a tile would be done, and by whom first.

Speed is learned per (device, kind of work), in seconds per pixel and worker. A measurement runs
from the moment at which a worker was free for the tile, which the device's earlier answers tell,
so it includes the network where the network is what limits the device.

What takes longer than it should is expected to need more time still, and more the later it is:
so a device that slows down counts as slow before its tile has come. And after a tile that took
much longer it is feared to be slow, until the next tells whether it is.
"""

from __future__ import annotations

import math

from fogmqtt.core.scheduling.device import DeviceState, ServiceTime
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.state import ActiveJob, Lease, TileState

#: So many times what it should have taken, and a tile is odd. One alone is a straggler, and counts
#: as no worse than that; from the second on it is the device.
_OUTLIER = 2.0
#: More kinds of work than this per device, and the one learned first is forgotten.
_KNOWN_KINDS = 256
#: What is late needs so many times longer than it is late by: most of what is late is very late.
_OVERRUN = 2.0
#: Late by more than this part of what it should take tells of more than this tile.
_LATE = 0.25


class ServiceTimes:
    """Learned paces, and forecasts for `now`, which whoever has a clock keeps right."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.now = -math.inf
        #: Over all devices, by kind: a guess for those not yet measured.
        self._typical: dict[str, ServiceTime] = {}

    def measured(self, device: DeviceState, kind: str) -> bool:
        return kind in device.service_times

    def rate(self, device: DeviceState, kind: str) -> float:
        """Seconds per pixel and worker; 0 if nobody ever did such work.

        An unmeasured device counts as typical, so that it is tried as soon as any other.
        """
        service_time = device.service_times.get(kind) or self._typical.get(kind)
        return service_time.rate if service_time is not None else 0.0

    def rate_now(self, device: DeviceState, kind: str) -> float:
        """The same, where what is in its hands tells that the device has slowed down, too."""
        return self.rate(device, kind) * self.slowness(device)

    def service_s(self, device: DeviceState, tile: TileState) -> float:
        """What this tile should take in a worker's hands; 0 if nobody ever did such work."""
        return self.rate(device, tile.job.kind) * tile.pixels

    def finish_s(self, device: DeviceState, job: ActiveJob, pixels: float) -> float:
        """From now until a tile of so many pixels would be done, were it sent now."""
        return self.queue_s(device) + self.rate_now(device, job.kind) * pixels

    def queue_s(self, device: DeviceState) -> float:
        """From now until a worker would have time for another tile."""
        if len(device.leases) < device.workers and not any(
            at > self.now for at in device.result_times
        ):
            return 0.0
        return min(self.free_s(device))

    def free_s(self, device: DeviceState, before: Lease | None = None) -> list[float]:
        """From now until each worker is done with what the device got, or got `before` that."""
        free = [max(0.0, at - self.now) for at in device.free_from()]
        for place, (tile, lease) in enumerate(device.leases.items()):
            if lease is before:
                break
            if place < device.workers:
                free[place] = self._in_service_s(device, lease, place)
            else:
                free[free.index(min(free))] += self.service_s(device, tile)
        return free

    def left_s(self, device: DeviceState, lease: Lease) -> float:
        """From now until a held tile should be done, with what is queued before it."""
        place = list(device.leases.values()).index(lease)
        if place < device.workers:
            return self._in_service_s(device, lease, place)
        own_s = self.service_s(device, lease.tile) * self.slowness(device)
        return min(self.free_s(device, lease)) + own_s

    def _in_service_s(self, device: DeviceState, lease: Lease, place: int) -> float:
        expected_s = self.service_s(device, lease.tile)
        if expected_s == 0:
            return 0.0
        late_s = self._elapsed_s(device, lease, place) - expected_s
        overrun_s = _OVERRUN * late_s if self._is_slow(late_s, expected_s) else 0.0
        feared_s = (lease.slowdown_factor - 1) * expected_s
        return max(-late_s, overrun_s, feared_s - late_s)

    def _elapsed_s(self, device: DeviceState, lease: Lease, place: int) -> float:
        """How long a worker has had it. What is still on its way tells of the way."""
        return self.now - max(device.begun_at(lease, place), lease.accepted_at)

    def late_at(self, device: DeviceState) -> float:
        """When the first of what it has in its hands becomes late, or became."""
        hands = list(device.leases.items())[: device.workers]
        ends = (
            max(device.begun_at(lease, place), lease.accepted_at) + self.service_s(device, tile)
            for place, (tile, lease) in enumerate(hands)
        )
        return min(ends, default=math.inf)

    def slowness(self, device: DeviceState) -> float:
        """How many times longer than learned its tiles seem to take now; at least 1."""
        slowness = 1.0
        for place, lease in enumerate(device.in_service()):
            slowness = max(slowness, lease.slowdown_factor)
            expected_s = self.service_s(device, lease.tile)
            late_s = self._elapsed_s(device, lease, place) - expected_s
            if expected_s > 0 and self._is_slow(late_s, expected_s):
                slowness = max(slowness, 1 + (1 + _OVERRUN) * late_s / expected_s)
        return slowness

    def straggles(self, device: DeviceState, lease: Lease) -> bool:
        """Whether what a worker should have in its hands takes so long that this is odd."""
        place = list(device.leases.values()).index(lease)
        expected_s = self.service_s(device, lease.tile)
        return self._elapsed_s(device, lease, place) > _OUTLIER * expected_s > 0

    def _is_slow(self, late_s: float, expected_s: float) -> bool:
        """Whether it is late by more than jitter."""
        return late_s > _LATE * expected_s + self._policy.hedge_min_s

    def remaining_s(self, device: DeviceState, lease: Lease) -> float:
        """What a held tile should take, with what is queued before it, from its begin on."""
        queue, before = 0.0, 0
        for tile in device.leases:
            if tile is lease.tile:
                break
            queue += self.service_s(device, tile)
            before += 1
        own = self.service_s(device, lease.tile)
        return own if before < device.workers else queue / device.workers + own

    def rounds(self, device: DeviceState, lease: Lease) -> int:
        """How often its workers must finish before this tile is done, itself included."""
        return 1 + list(device.leases).index(lease.tile) // device.workers

    def learn(self, device: DeviceState, tile: TileState, service_s: float) -> None:
        """A worker of the device took so long for the tile."""
        kind, known = tile.job.kind, device.service_times.get(tile.job.kind)
        for service_times in (device.service_times, self._typical):
            _store(service_times, kind, self._updated(service_times.get(kind), tile, service_s))
        service_time = device.service_times[kind]
        slowdown_factor = 1.0
        expected_s = 0.0 if known is None else known.rate * tile.pixels
        if (
            known
            and service_time.outlier
            and not known.outlier
            and self._is_slow(service_s - expected_s, expected_s)
        ):
            # If it slowed down in the midst of the tile, half of that was done before.
            slowdown_factor = max(
                1.0, (2 * service_s - expected_s) / (service_time.rate * tile.pixels)
            )
        for lease in device.leases.values():
            if lease.tile.job.kind == kind:
                lease.slowdown_factor = slowdown_factor

    def _updated(self, known: ServiceTime | None, tile: TileState, service_s: float) -> ServiceTime:
        if known is None:
            return ServiceTime(service_s, tile.pixels)
        expected_s = known.rate * tile.pixels
        if service_s < expected_s / _OUTLIER:
            return ServiceTime(service_s, tile.pixels)  # nobody is as fast as that by chance
        pixels = self._policy.blend(known.pixels, tile.pixels)
        most_s = _OUTLIER * expected_s
        if not service_s > most_s > 0:
            return ServiceTime(self._policy.blend(known.seconds, service_s), pixels)
        if known.outlier:
            return ServiceTime(service_s, tile.pixels, outlier=True)
        return ServiceTime(self._policy.blend(known.seconds, most_s), pixels, outlier=True)

    def learn_at_least(self, device: DeviceState, tile: TileState, service_s: float) -> bool:
        """It takes the device longer than that; returns whether that is news."""
        kind, service_time = tile.job.kind, ServiceTime(service_s, tile.pixels)
        known = device.service_times.get(kind)
        if known is not None and service_time.rate <= known.rate:
            return False
        _store(device.service_times, kind, service_time)
        return True


def _store(service_times: dict[str, ServiceTime], kind: str, service_time: ServiceTime) -> None:
    service_times[kind] = service_time
    if len(service_times) > _KNOWN_KINDS:
        del service_times[next(iter(service_times))]
