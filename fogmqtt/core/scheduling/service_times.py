"""How fast devices are, and when a tile would be done where.

The speed is learned per device and kind of work, in seconds per pixel and worker. A measurement
starts when a worker was free for the tile, which the device's earlier results tell. So it includes
the network where the network limits the device.

A late tile is expected to need more time still, the later the more. So a device that slows down
counts as slow before its tile is done.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

from fogmqtt.core.scheduling.device import DeviceState, ServiceTime
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.state import ActiveJob, Lease, TileState

#: A tile that takes this many times the expected time is an outlier. A single one is a straggler
#: and counts as this factor; from the second in a row on, the device is slow.
_OUTLIER = 2.0
#: Above this number of kinds per device, the one learned first is forgotten.
_KNOWN_KINDS = 256
#: A late tile is expected to need this many times its delay more: most late tiles are very late.
_OVERRUN = 2.0
#: A delay beyond this part of the expected time says something about the device.
_LATE = 0.25


class ServiceTimes:
    """Learned service times, and forecasts from `now`, which the caller maintains."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.now = -math.inf
        #: By kind, over all devices: the estimate for an unmeasured device.
        self._typical: dict[str, ServiceTime] = {}

    def measured(self, device: DeviceState, kind: str) -> bool:
        return kind in device.service_times

    def rate(self, device: DeviceState, kind: str) -> float:
        """Seconds per pixel and worker; 0 while the kind is unknown.

        An unmeasured device counts as typical, so that it is tried as soon as any other. A device
        that holds tiles of another gateway has half of its time.
        """
        service_time = device.service_times.get(kind) or self._typical.get(kind)
        if service_time is None:
            return 0.0
        return 2 * service_time.rate if device.held_for_others else service_time.rate

    def rate_now(self, device: DeviceState, kind: str) -> float:
        """The rate, corrected by the delay of the tiles in service."""
        return self.rate(device, kind) * self.slowness(device)

    def service_s(self, device: DeviceState, tile: TileState) -> float:
        """The expected time of this tile in a worker; 0 while the kind is unknown."""
        return self.rate(device, tile.job.kind) * tile.pixels

    def finish_s(self, device: DeviceState, job: ActiveJob, pixels: float) -> float:
        """From now until a tile of this many pixels would be done if it were sent now."""
        return self.queue_s(device) + self.rate_now(device, job.kind) * pixels

    def queue_s(self, device: DeviceState) -> float:
        """From now until a worker would be free for another tile."""
        if len(device.leases) < device.workers and not any(
            at > self.now for at in device.result_times
        ):
            return 0.0
        return min(self.free_s(device))

    def free_s(self, device: DeviceState, before: Lease | None = None) -> list[float]:
        """From now until each worker is done with what the device holds, or holds ahead of
        `before`.
        """
        free = [max(0.0, at - self.now) for at in device.free_from()]
        expected = self._expected_s(device, device.leases)
        for place, (lease, tile_s) in enumerate(zip(device.leases.values(), expected, strict=True)):
            if lease is before:
                break
            if place < device.workers:
                free[place] = self._in_service_s(device, lease, place)
            else:
                least_s = min(free)
                free[free.index(least_s)] = least_s + tile_s
        return free

    def _expected_s(self, device: DeviceState, tiles: Iterable[TileState]) -> list[float]:
        """`service_s` of each tile. Most are of one kind, whose rate is worked out once."""
        kind, rate, expected = None, 0.0, []
        for tile in tiles:
            if tile.job.kind != kind:
                kind = tile.job.kind
                rate = self.rate(device, kind)
            expected.append(rate * tile.pixels)
        return expected

    def left_s(self, device: DeviceState, lease: Lease) -> float:
        """From now until a held tile is expected to be done, with the queue ahead of it."""
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
        return max(-late_s, overrun_s)

    def _elapsed_s(self, device: DeviceState, lease: Lease, place: int) -> float:
        """How long a worker has had the tile. Time in transit does not count."""
        elapsed_s = self.now - max(device.begun_at(lease, place), lease.accepted_at)
        return elapsed_s if lease.is_sent else min(elapsed_s, 0.0)

    def slow_at(self, device: DeviceState) -> float:
        """When the first of its tiles in service becomes so late that the device seems slow."""
        moments = (
            max(device.begun_at(lease, place), lease.accepted_at) + self._most_s(device, lease.tile)
            for place, lease in enumerate(islice(device.leases.values(), device.workers))
            if lease.is_sent
        )
        return min(moments, default=math.inf)

    def _most_s(self, device: DeviceState, tile: TileState) -> float:
        """After this time in a worker the tile is late by more than jitter; never if unknown."""
        expected_s = self.service_s(device, tile)
        return (1 + _LATE) * expected_s + self._policy.hedge_min_s if expected_s else math.inf

    def slowness(self, device: DeviceState) -> float:
        """How many times slower than learned its tiles seem to be now; at least 1."""
        slowness = 1.0
        for place, lease in enumerate(device.in_service()):
            expected_s = self.service_s(device, lease.tile)
            late_s = self._elapsed_s(device, lease, place) - expected_s
            if late_s > 0 < expected_s and self._is_slow(late_s, expected_s):
                slowness = max(slowness, 1 + (1 + _OVERRUN) * late_s / expected_s)
        return slowness

    def straggles(self, device: DeviceState, lease: Lease) -> bool:
        """Whether a tile in service takes so long that it is an outlier."""
        place = list(device.leases.values()).index(lease)
        expected_s = self.service_s(device, lease.tile)
        return self._elapsed_s(device, lease, place) > _OUTLIER * expected_s > 0

    def _is_slow(self, late_s: float, expected_s: float) -> bool:
        """Whether the delay is larger than jitter."""
        return late_s > _LATE * expected_s + self._policy.hedge_min_s

    def remaining_s(self, device: DeviceState, lease: Lease) -> float:
        """The expected time of a held tile, with the queue ahead of it, from its begin on."""
        place = list(device.leases.values()).index(lease)
        queue = self._expected_s(device, islice(device.leases, place + 1))
        return queue[-1] + (sum(queue[:-1]) / device.workers if place >= device.workers else 0.0)

    def learn(self, device: DeviceState, tile: TileState, service_s: float) -> None:
        """A worker of the device took so long for the tile."""
        kind = tile.job.kind
        for known in (device.service_times, self._typical):
            _store(known, kind, self._updated(known.get(kind), tile.pixels, service_s))

    def _updated(self, known: ServiceTime | None, pixels: int, service_s: float) -> ServiceTime:
        if known is None:
            return ServiceTime(service_s, pixels)
        expected_s = known.rate * pixels
        if service_s < expected_s / _OUTLIER:
            return ServiceTime(service_s, pixels)  # nobody is as fast as that by chance
        mean_pixels = self._policy.blend(known.pixels, pixels)
        most_s = _OUTLIER * expected_s
        if not service_s > most_s > 0:
            return ServiceTime(self._policy.blend(known.seconds, service_s), mean_pixels)
        if known.outlier:
            return ServiceTime(service_s, pixels, outlier=True)
        return ServiceTime(self._policy.blend(known.seconds, most_s), mean_pixels, outlier=True)

    def learn_at_least(self, device: DeviceState, tile: TileState, service_s: float) -> bool:
        """The device takes longer than this. Returns whether that changes its service time."""
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
