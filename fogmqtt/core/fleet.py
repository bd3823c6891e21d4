"""Devices: who is there, what each may hold, and how fast each proved to be.

Speed is learned per (device, kind of work), in seconds per pixel and worker. A measurement runs
from the moment at which a worker was free for the tile, which the device's earlier answers tell,
so it includes the network where the network is what limits the device.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fogmqtt.core.events import DeviceJoined
from fogmqtt.core.ledger import Job, Lease, Tile
from fogmqtt.core.policy import Policy

#: More devices than this, and one that is offline is forgotten: ids come from the network.
_KNOWN_DEVICES = 4096
#: More kinds of work than this per device, and the one learned first is forgotten.
_KNOWN_KINDS = 256
#: So many times what it should, and a tile tells that its device has slowed down.
_OVERDUE = 1.5


@dataclass(frozen=True, slots=True)
class Pace:
    """What a tile took of late, and how large it was: means with the same weights.

    So a large tile tells more than a small one, most of whose time may be the way.
    """

    seconds: float
    pixels: float

    @property
    def rate(self) -> float:
        """Seconds per pixel."""
        return self.seconds / self.pixels


@dataclass(slots=True, eq=False)
class Device:
    """One device, for as long as we remember it: rates and quarantine survive a restart."""

    id: str
    #: Breaks ties: the order of joining.
    serial: int
    boot: str
    workers: int
    operators: frozenset[str]
    #: Why it does not offer what it does not, by operator.
    lacks: Mapping[str, str] = field(default_factory=dict)
    online: bool = True
    draining: bool = False
    quarantined: bool = False
    #: After a quarantine: one tile at a time until one succeeds.
    probation: bool = False
    #: Handed a tile back a moment ago.
    paused: bool = False
    #: The end of the quarantine or pause.
    wake_at: float | None = None
    #: What it holds, oldest first.
    leases: dict[Tile, Lease] = field(default_factory=dict)
    #: It holds a tile that others died of, and gets nothing beside it.
    alone: bool = False
    #: Mishaps in a row, and quarantines in a row, without a result in between.
    strikes: int = 0
    quarantines: int = 0
    #: Tiles handed back in a row, without one accepted in between.
    returns: int = 0
    #: Silences in a row: a tile was not even accepted.
    misses: int = 0
    missed_at: float = -math.inf
    #: When it last said anything about a tile.
    heard_at: float = -math.inf
    #: When its last results came, as many as it has workers.
    answers: deque[float] = field(default_factory=deque)
    #: How fast it is, by kind.
    paces: dict[str, Pace] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """It may be given tiles, if its window allows."""
        return self.online and not self.draining and not self.quarantined

    def freed_at(self, lease: Lease) -> float:
        """From when on a worker can have had this tile in its hands."""
        if len(self.answers) < self.workers:
            return lease.granted_at
        return max(lease.granted_at, self.answers[-self.workers])

    def in_service(self) -> list[Lease]:
        """What its workers should have in their hands now."""
        return [lease for lease in self.leases.values() if lease.accepted][: self.workers]


class Fleet:
    """All devices by id, in order of joining, and who has room for another tile."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._serial = 0
        self.devices: dict[str, Device] = {}
        #: Those with room, those of them with an idle worker, and those that hold tiles;
        #: `refresh` keeps all three.
        self.roomy: dict[str, Device] = {}
        self.idle: dict[str, Device] = {}
        self.busy: dict[str, Device] = {}
        #: Those with room that were not asked since they changed.
        self.hungry: dict[str, Device] = {}
        #: Who is ready, or for what, may have changed since somebody set this to False.
        self.shifted = False
        #: Counts whatever changes what the fleet can do.
        self.changes = 0
        #: Over all devices, by kind: a guess for those not yet measured.
        self._typical: dict[str, Pace] = {}

    def get(self, device: str) -> Device | None:
        return self.devices.get(device)

    def join(self, event: DeviceJoined) -> Device:
        """Take a device in, or take note of what it says now."""
        device = self.devices.get(event.device)
        if device is None:
            device = self._add(event)
        elif device.boot != event.boot:
            device.boot = event.boot
            device.draining = False
            device.misses = 0
        device.online = True
        # No window is larger, so more workers cannot be used; a lie must not cost us memory.
        device.workers = max(1, min(event.workers, self._policy.max_window))
        device.operators = event.operators
        device.lacks = event.lacks
        device.answers = deque(device.answers, maxlen=device.workers)
        self._shift(device)
        return device

    def _add(self, event: DeviceJoined) -> Device:
        if len(self.devices) >= _KNOWN_DEVICES:
            self._forget_one()
        self._serial += 1
        device = Device(event.device, self._serial, event.boot, event.workers, event.operators)
        self.devices[event.device] = device
        return device

    def _forget_one(self) -> None:
        for device in self.devices.values():
            if not device.online:
                device.wake_at = None
                del self.devices[device.id]
                return

    def lose(self, device: Device) -> None:
        device.online = False
        self._shift(device)

    def drain(self, device: Device) -> None:
        device.draining = True
        self._shift(device)

    def quarantine(self, device: Device) -> None:
        device.quarantines += not device.quarantined
        device.quarantined = True
        self._shift(device)

    def pause(self, device: Device) -> None:
        device.returns += not device.paused
        device.paused = True
        self.refresh(device)

    def resume(self, device: Device) -> None:
        """Its quarantine or pause is over."""
        device.probation = device.probation or device.quarantined
        device.quarantined = device.paused = False
        self._shift(device)

    def miss(self, device: Device) -> None:
        """It was silent: it did not even accept a tile."""
        device.misses += 1
        self.refresh(device)

    def hear(self, device: Device, now: float) -> None:
        """It spoke of a tile, so it is not silent."""
        device.heard_at = now
        if device.misses:
            device.misses = 0
            self.refresh(device)

    def window(self, device: Device) -> int:
        """How many tiles it may hold now."""
        if not device.ready or device.paused:
            return 0
        # One that was silent gets one tile until it accepts: the others would wait in vain.
        if device.probation or device.misses or device.alone:
            return 1
        return self._policy.window(device.workers)

    def _shift(self, device: Device) -> None:
        self.shifted = True
        self.refresh(device)

    def refresh(self, device: Device) -> None:
        """To be called after every change of what a device holds or may hold."""
        held = len(device.leases)
        has_room = held < self.window(device)
        self.changes += 1
        _keep(self.roomy, device, has_room)
        _keep(self.hungry, device, has_room)
        _keep(self.idle, device, has_room and held < device.workers)
        _keep(self.busy, device, held > 0)

    def able(self, job: Job) -> Iterator[Device]:
        """Those that may be given tiles of this job, with room or without."""
        return (device for device in self._suited(job) if device.ready)

    def present(self, job: Job) -> Iterator[Device]:
        """Those, and those that will be again when their quarantine ends."""
        return (device for device in self._suited(job) if device.online and not device.draining)

    def _suited(self, job: Job) -> Iterator[Device]:
        operators, disproved = job.operators, job.disproved
        return (
            device
            for device in self.devices.values()
            if operators <= device.operators and device.id not in disproved
        )

    def take(self, lease: Lease) -> None:
        device = self.devices[lease.device]
        device.leases[lease.tile] = lease
        device.alone = lease.alone
        self.refresh(device)

    def give_back(self, lease: Lease) -> None:
        device = self.devices[lease.device]
        del device.leases[lease.tile]
        device.alone = False
        self.refresh(device)

    def forget_leases(self, device: Device, now: float) -> None:
        """We took everything back, and it still works on that: its workers have no time yet."""
        ahead_s = sum(self.service_s(device, tile) for tile in device.leases)
        if ahead_s > 0:
            device.answers.append(now + ahead_s / device.workers)

    # -- how fast ---------------------------------------------------------------------------

    def measured(self, device: Device, kind: str) -> bool:
        return kind in device.paces

    def rate(self, device: Device, kind: str) -> float:
        """Seconds per pixel and worker; 0 if nobody ever did such work.

        An unmeasured device counts as typical, so that it is tried as soon as any other.
        """
        pace = device.paces.get(kind) or self._typical.get(kind)
        return pace.rate if pace is not None else 0.0

    def service_s(self, device: Device, tile: Tile) -> float:
        """What this tile should take in a worker's hands; 0 if nobody ever did such work."""
        return self.rate(device, tile.job.kind) * tile.pixels

    def finish_s(self, device: Device, job: Job, pixels: float) -> float:
        """From now until a tile of so many pixels would be done, were it sent now."""
        return self.queue_s(device) + self.rate(device, job.kind) * pixels

    def queue_s(self, device: Device) -> float:
        """From now until a worker would have time for another tile."""
        if len(device.leases) < device.workers:
            return 0.0
        ahead = sum(self.service_s(device, tile) for tile in device.leases)
        return ahead / device.workers

    def remaining_s(self, lease: Lease) -> float:
        """What a held tile should take, with what is queued before it on its device."""
        device = self.devices[lease.device]
        queue, before = 0.0, 0
        for tile in device.leases:
            if tile is lease.tile:
                break
            queue += self.service_s(device, tile)
            before += 1
        own = self.service_s(device, lease.tile)
        return own if before < device.workers else queue / device.workers + own

    def slowness(self, device: Device, now: float) -> float:
        """How many times longer than learned its tiles seem to take now; at least 1.

        What already took much too long is expected to take as long again.
        """
        overdue = 0.0
        for lease in device.in_service():
            expected_s = self.service_s(device, lease.tile)
            if expected_s > 0:
                overdue = max(overdue, (now - device.freed_at(lease)) / expected_s)
        return 2 * overdue if overdue > _OVERDUE else 1.0

    def rounds(self, lease: Lease) -> int:
        """How often its workers must finish before this tile is done, itself included."""
        device = self.devices[lease.device]
        return 1 + list(device.leases).index(lease.tile) // device.workers

    def learn(self, lease: Lease, now: float, compute_s: float | None) -> bool:
        """Take a result into account, late or not: the device works, and so fast.

        Returns False if `compute_s` was impossible and not used.
        """
        device = self.devices.get(lease.device)
        if device is None:
            return True
        begun_at = device.freed_at(lease) if lease.begun_at is None else lease.begun_at
        service_s = now - begun_at
        sane = compute_s is None or 0 <= compute_s <= now - lease.granted_at
        if compute_s is not None and sane:
            # Results that queued up on the way seem to have taken no time at all.
            service_s = max(service_s, compute_s)
        device.answers.append(now)
        self._blend(device, lease.tile, service_s)
        device.strikes = device.quarantines = device.returns = 0
        if device.probation:
            device.probation = False
            self.refresh(device)
        return sane

    def learn_at_least(self, lease: Lease, now: float) -> None:
        """Measure work that was taken away undone: it takes longer than that.

        So a device too slow for its lease gets a longer one, until it can finish.
        """
        device = self.devices[lease.device]
        if not lease.accepted or lease not in device.in_service():
            return
        # Whatever comes next is in a worker's hands from now on, not from the last answer on.
        freed_at = lease.begun_at = device.freed_at(lease)
        device.answers.append(now)
        kind, pace = lease.tile.job.kind, Pace(now - freed_at, lease.tile.pixels)
        known = device.paces.get(kind)
        if known is None or pace.rate > known.rate:
            self.changes += 1
            _note(device.paces, kind, pace)

    def _blend(self, device: Device, tile: Tile, service_s: float) -> None:
        self.changes += 1
        for paces in (device.paces, self._typical):
            known = paces.get(tile.job.kind)
            seconds = self._policy.blend(known.seconds if known else None, service_s)
            pixels = self._policy.blend(known.pixels if known else None, tile.pixels)
            _note(paces, tile.job.kind, Pace(seconds, pixels))


def _note(paces: dict[str, Pace], kind: str, pace: Pace) -> None:
    paces[kind] = pace
    if len(paces) > _KNOWN_KINDS:
        del paces[next(iter(paces))]


def _keep(devices: dict[str, Device], device: Device, keep: bool) -> None:
    if keep:
        devices[device.id] = device
    else:
        devices.pop(device.id, None)
