"""Devices: which are there, how many tiles each may hold, and which have room for more."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence

from fogmqtt.core.scheduling.device import DeviceState
from fogmqtt.core.scheduling.events import DeviceJoined
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.service_times import ServiceTimes
from fogmqtt.core.scheduling.state import ActiveJob, Lease, TileState

#: Above this number an offline device is forgotten: ids come from the network.
_KNOWN_DEVICES = 4096
#: A cancelled tile ends within a second, and a new worker needs some time to start.
RESTART_S = 1.3
#: Tiles of a job that doubtful devices may hold while others answer; or as many as those are.
_TRIALS = 4
#: Round trips and tiles vary: the window covers this multiple of the usual round trip.
_WINDOW_MARGIN = 2.0


class Fleet:
    """All devices by id in order of joining, and which of them have room for another tile."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._serial = 0
        self.devices: dict[str, DeviceState] = {}
        self._offline: dict[str, DeviceState] = {}
        #: Bytes of granted tiles that no device has accepted yet.
        self.bytes_in_flight = 0
        #: The limit of those: what the gateway's link takes within a few seconds.
        self.max_bytes_in_flight: float = policy.max_bytes_in_flight
        #: Devices with room, devices with room and an idle worker, and devices that hold tiles.
        #: `refresh` maintains all of these.
        self.with_room: dict[str, DeviceState] = {}
        self.idle: dict[str, DeviceState] = {}
        self.busy: dict[str, DeviceState] = {}
        #: Ready devices that answer, and doubtful ones that hold tiles. Likewise.
        self.proven: dict[str, DeviceState] = {}
        self.doubted: dict[str, DeviceState] = {}
        #: Devices with room that changed since placement last considered them.
        self.candidates: dict[str, DeviceState] = {}
        #: It gets no tile until it is idle, because a suspect tile waits for an idle device.
        self.reserved: DeviceState | None = None
        #: Whether the readiness or abilities of a device changed since this was reset.
        self.readiness_changed = False
        #: Counts every change of what the fleet can do.
        self.changes = 0
        self.service_times = ServiceTimes(policy)
        #: No tile that can be halved takes longer; see `Scheduler.limit_tiles`.
        self.most_tile_s = math.inf

    def get(self, device: str) -> DeviceState | None:
        return self.devices.get(device)

    def join(self, event: DeviceJoined) -> DeviceState:
        """Add a device, or update what is known of it."""
        device = self.devices.get(event.device)
        if device is None:
            device = self._add(event)
        elif device.boot != event.boot:
            device.boot = event.boot
            device.draining = False
            device.silences = device.starts = device.held_for_others = 0
        device.online, device.is_local = True, event.is_local
        self._offline.pop(device.id, None)
        # No window is larger, so more workers cannot be used; a false number must not cost memory.
        device.workers = max(1, min(event.workers, self._policy.max_window))
        device.operators = event.operators
        device.lacks = event.lacks
        room = event.max_tile_pixels
        device.max_tile_pixels = room if room >= 1 else math.inf  # so nonsense means no limit
        device.result_times = deque(device.result_times, maxlen=device.workers)
        self.change_readiness(device)
        return device

    def _add(self, event: DeviceJoined) -> DeviceState:
        if len(self.devices) >= _KNOWN_DEVICES:
            self._forget_one()
        self._serial += 1
        device = DeviceState(event.device, self._serial, event.boot, event.workers, event.operators)
        self.devices[event.device] = device
        return device

    def _forget_one(self) -> None:
        if self._offline:
            name, device = next(iter(self._offline.items()))
            device.wake_at = None
            del self._offline[name], self.devices[name]

    def lose(self, device: DeviceState) -> None:
        device.held_before_loss += [one for one in device.leases.values() if one.accepted]
        device.online = False
        self._offline[device.id] = device
        self.change_readiness(device)

    def quarantine(self, device: DeviceState) -> None:
        device.quarantines += not device.quarantined
        device.quarantined = True
        device.is_forgivable = False
        self.change_readiness(device)

    def forgive(self, device: DeviceState) -> None:
        """Clear its silences, and a quarantine that has no other reason."""
        if device.quarantined and device.is_forgivable:
            device.quarantined = device.paused = False
            device.wake_at = None
            device.quarantines -= 1
        device.faults -= device.silent_faults
        device.silent_faults = 0

    def pause(self, device: DeviceState) -> None:
        device.returns += not device.paused
        device.paused = True
        self.refresh(device)

    def resume(self, device: DeviceState) -> None:
        """End the quarantine or pause of a device."""
        device.probation = device.probation or device.quarantined
        device.quarantined = device.paused = False
        self.change_readiness(device)

    def record_accept(self, device: DeviceState, lease: Lease, after_s: float) -> None:
        """The device accepted a tile this long after the tile was sent."""
        if device.accept_time_s == math.inf:
            device.accept_time_s = after_s
        device.accept_time_s = max(after_s, self._policy.blend(device.accept_time_s, after_s))
        if lease.first:
            known_s = None if device.round_trip_s == math.inf else device.round_trip_s
            device.round_trip_s = self._policy.blend(known_s, after_s)
            self.refresh(device)

    def accept_timeout_s(self, device: DeviceState) -> float:
        """How long the device may take to accept a tile, judged by its earlier accepts and
        silences.
        """
        policy = self._policy
        if device.silences:
            return policy.accept_after(device.silences)
        return min(policy.min_lease_s + policy.lease_factor * device.accept_time_s, policy.accept_s)

    def record_message(self, device: DeviceState, at: float) -> None:
        """The device sent a message about a tile, so it is not silent."""
        was_doubtful, was_silent = device.doubtful, device.silences > 0
        device.heard_at = max(at, device.heard_at)
        device.silences = 0
        if was_silent and device.paused:
            device.paused = False
            if not device.quarantined:
                device.wake_at = None
        if was_doubtful:
            self.change_readiness(device)

    def record_silence(self, device: DeviceState, now: float) -> None:
        """The device did not accept a tile in time."""
        device.silent_since = now
        device.silences += 1
        self.change_readiness(device)

    def pause_silent(self, device: DeviceState) -> None:
        """Give no tiles to a silent device until it answers or `resume` is called."""
        device.paused = True
        self.refresh(device)

    def window(self, device: DeviceState) -> int:
        """How many tiles the device may hold now."""
        if not device.ready or device.paused:
            return 0
        # A silent device gets one tile until it accepts: further tiles would only wait there.
        if device.probation or device.silences or device.exclusive:
            return 1
        ahead = max(self._policy.ahead, _tiles_in_transit(device))
        return min(device.workers + ahead, self._policy.max_window)

    def change_readiness(self, device: DeviceState) -> None:
        """Update what follows from whether a device is ready."""
        self.readiness_changed = True
        self.refresh(device)

    def refresh(self, device: DeviceState) -> None:
        """Update the derived sets. Call this after each change of what a device holds or may."""
        device.begin()
        held = len(device.leases)
        has_room = held < self.window(device)
        self.changes += 1
        _keep(self.with_room, device, has_room)
        _keep(self.candidates, device, has_room)
        _keep(self.idle, device, has_room and held < device.workers)
        _keep(self.busy, device, held > 0)
        doubtful = device.doubtful
        _keep(self.proven, device, device.ready and not doubtful)
        _keep(self.doubted, device, held > 0 and doubtful)

    def able(self, job: ActiveJob) -> Iterator[DeviceState]:
        """Devices that may be given tiles of this job, with room or without."""
        return (device for device in self._suited(job) if device.ready)

    def present(self, job: ActiveJob) -> Iterator[DeviceState]:
        """Devices that may be given tiles of this job now or after their quarantine."""
        return (device for device in self._suited(job) if device.online and not device.draining)

    def has_use_for(self, job: ActiveJob) -> bool:
        """Whether some able device may do tiles of the job: not all of them are mute."""
        return any(not device.mute for device in self.able(job))

    def counted(self, job: ActiveJob) -> Iterator[DeviceState]:
        """Of the able devices those on which an estimate counts: few doubtful ones, if any answer.

        They may be mute, however many they are.
        """
        most = _TRIALS if self._has_proven(job) else math.inf
        doubtful = 0
        for device in self.able(job):
            if device.doubtful:
                doubtful += 1
                if doubtful > most:
                    continue
            yield device

    def may_try(self, job: ActiveJob, device: DeviceState) -> bool:
        """Whether the device may be given another tile of this job, for all that is known of it.

        While some device answers, few tiles of a job go to doubtful ones: mute boards would get
        them all, since they always have room.
        """
        if not device.doubtful or not self._has_proven(job):
            return True
        held = (tile.job is job for one in self.doubted.values() for tile in one.leases)
        return sum(held) < max(_TRIALS, len(self.proven))

    def _has_proven(self, job: ActiveJob) -> bool:
        return any(device.suits(job) for device in self.proven.values())

    def _suited(self, job: ActiveJob) -> Iterator[DeviceState]:
        return (device for device in self.devices.values() if device.suits(job))

    def take(self, lease: Lease) -> None:
        device = self.devices[lease.device]
        lease.first = all(one.accepted for one in device.leases.values())
        device.leases[lease.tile] = lease
        self.bytes_in_flight += lease.tile.nbytes
        device.exclusive = lease.exclusive
        self.refresh(device)

    def record_send(self, lease: Lease, now: float) -> None:
        """The tile is on the wire."""
        device = self.devices[lease.device]
        lease.first = all(one.accepted or one is lease for one in device.leases.values())
        lease.sent_at = now
        lease.begun_at = None
        self.refresh(device)

    def has_bytes_for(self, tile: TileState) -> bool:
        """Whether the budget allows sending the tile. A tile larger than the budget goes alone."""
        limit = self.max_bytes_in_flight
        return not self.bytes_in_flight or self.bytes_in_flight + tile.nbytes <= limit

    def report_held(self, device: DeviceState, held: int, now: float) -> None:
        """The device holds this many tiles, those of other gateways included."""
        if now < device.cancelling_until:
            return  # it may count tiles that are not this gateway's any more
        own = sum(lease.accepted for lease in device.leases.values())
        device.held_for_others = max(0, held - own)
        self.changes += 1

    def give_back(self, lease: Lease) -> None:
        device = self.devices[lease.device]
        del device.leases[lease.tile]
        if not lease.accepted:
            self.bytes_in_flight -= lease.tile.nbytes
        device.exclusive = False
        self.refresh(device)

    # -- how fast ---------------------------------------------------------------------------

    def learn(
        self, device: DeviceState, lease: Lease, at: float, compute_s: float, start_s: float
    ) -> None:
        """Learn the service time from a result that arrived at `at`, late or not.

        The device reports `compute_s` seconds of work and `start_s` seconds to start a worker.
        """
        if start_s and device.starts < device.workers:
            device.starts += 1
        else:
            start_s = 0.0  # or it could seem as fast as it likes
        # Results that queued up in transit would otherwise seem to take no time at all.
        service_s = max(at - device.freed_at(lease) - start_s, compute_s)
        if device.held_for_others:
            service_s = compute_s  # the rest of the time belongs to other gateways
        device.result_times.append(at)
        self.changes += 1
        if service_s or not device.held_for_others:
            self.service_times.learn(device, lease.tile, service_s)
            device.tile_s = device.service_times[lease.tile.job.kind].seconds
        device.faults = device.quarantines = device.returns = 0
        device.silent_faults = 0
        device.probation = False
        self.refresh(device)

    def learn_at_least(self, lease: Lease, now: float, *, hangs: bool) -> None:
        """Learn a lower bound from a tile that was revoked before its result came.

        A device that is too slow for its lease gets a longer one, until it can finish. Unless the
        worker `hangs`, it stays busy with the tile until its expected end or restart.
        """
        device = self.devices[lease.device]
        device.cancelling_until = now + RESTART_S
        if not lease.accepted or lease not in device.in_service():
            return
        left_s = 0.0 if hangs else min(self.service_times.left_s(device, lease), RESTART_S)
        freed_at = device.freed_at(lease)
        # The next tile begins from then on, not from the previous result on.
        device.result_times.append(now + left_s)
        if device.held_for_others:
            return
        taken_s = now - freed_at
        if taken_s <= 0:
            return  # no worker can have begun with it
        self.changes += self.service_times.learn_at_least(device, lease.tile, taken_s)

    def occupy(self, device: DeviceState, tiles: Sequence[TileState], now: float) -> None:
        """Account for tiles that the device still works on although it no longer holds them."""
        ahead_s = sum(self.service_times.service_s(device, tile) for tile in tiles)
        if ahead_s > 0:
            device.result_times.append(now + ahead_s / device.workers)


def _keep(devices: dict[str, DeviceState], device: DeviceState, keep: bool) -> None:
    if keep:
        devices[device.id] = device
    else:
        devices.pop(device.id, None)


def _tiles_in_transit(device: DeviceState) -> int:
    """Tiles that must be queued or in transit so that no worker ever waits for one.

    This is the bandwidth-delay product in tiles: the round trip over the time between two tiles.
    """
    if device.round_trip_s == math.inf or device.tile_s == 0:
        return 0
    tiles = _WINDOW_MARGIN * device.round_trip_s * device.workers / device.tile_s
    return math.ceil(tiles) if tiles < math.inf else 0
