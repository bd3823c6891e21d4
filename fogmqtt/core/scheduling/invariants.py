"""What must be true of the scheduler's state after every event."""

from __future__ import annotations

import math

from fogmqtt.core.scheduling.device import DeviceState
from fogmqtt.core.scheduling.leases import AnyTimer, LeaseTable
from fogmqtt.core.scheduling.state import ActiveJob, Lease, SpotCheck, SpotCheckState, TileState


def check(table: LeaseTable) -> None:
    """Raise AssertionError at the first contradiction, naming the tile or device."""
    pending = set(table.timers.pending())
    for job in table.jobs.values():
        _check_job(table, job, pending)
    _check_bytes(table)
    for device in table.fleet.devices.values():
        _check_device(table, device, pending)
    for name in table.ended:
        _must(name not in table.jobs, f"job {name} runs and has ended")


def _check_bytes(table: LeaseTable) -> None:
    live = [lease for job in table.jobs.values() for lease in job.live_leases()]
    sizes = [lease.tile.nbytes for lease in live if not lease.accepted and lease.tile.nbytes]
    counted = table.fleet.bytes_in_flight
    _must(counted == sum(sizes), f"{counted} bytes are in flight, in fact {sum(sizes)}")
    fits = sum(sizes) <= table.policy.max_bytes_in_flight or len(sizes) == 1
    _must(fits, f"{counted} bytes are in flight")


def _check_job(table: LeaseTable, job: ActiveJob, pending: set[AnyTimer]) -> None:
    for tile in job.tiles:
        _check_tile(table, tile, pending)
    tiles = [tile for tile in job.tiles if not tile.is_check_tile and not tile.split]
    _must(job.total == len(tiles), f"{job.id}: {job.total} tiles, in fact {len(tiles)}")
    left = sum(tile.pixels for tile in tiles if not tile.done)
    _must(job.pixels_left == left, f"{job.id}: {job.pixels_left} pixels left, in fact {left}")
    undone = sum(not tile.done for tile in tiles)
    _must(job.remaining == undone, f"{job.id}: {job.remaining} remain, {undone} are undone")
    _check_checks(table, job)
    _must(undone > 0 or job.undecided, f"{job.id} is done and runs")
    if job.has_waiting_tiles:
        _must(table.placement.is_queued(job), f"{job.id} waits and never has its turn")
    pixels = sum(tile.pixels for tile in job.waiting)
    _must(job.waiting.pixels == pixels, f"{job.id}: {job.waiting.pixels} wait, in fact {pixels}")
    _check_hope(table, job, pending)
    starved = undone > 0 and not table.fleet.has_use_for(job)
    _must(starved == (job.starved_since is not None), f"{job.id}: starved is {starved}")


def _check_hope(table: LeaseTable, job: ActiveJob, pending: set[AnyTimer]) -> None:
    with_room = [one for one in table.fleet.able(job) if one.id in table.fleet.with_room]
    # A device that holds a tile may have been reserved for a suspect of a job that has ended.
    idle = any(not one.leases for one in with_room)
    reserves = any(one.suspects for one in table.jobs.values())
    if job.waiting and idle and not reserves and not table.placement.is_blocked:
        _must(
            table.placement_timer in pending,
            f"{job.id} waits, there is room, and no timer is set",
        )


def _check_checks(table: LeaseTable, job: ActiveJob) -> None:
    check_tiles = [tile for tile in job.tiles if tile.is_check_tile]
    _must([check.check_tile for check in job.checks] == check_tiles, f"{job.id}: its check tiles")
    for check in job.checks:
        _check_check(table, check)


def _check_check(table: LeaseTable, check: SpotCheck) -> None:
    name, first, second = str(check.check_tile), check.tile.kept, check.check_tile.kept
    is_open = check.state is SpotCheckState.OPEN
    _must(
        check.check_tile.done != is_open,
        f"{name} is {check.state} and done is {check.check_tile.done}",
    )
    _must(not (is_open and second), f"{name} has an opinion and nobody compared it")
    if check.correct_digest is not None:
        _must(
            check.state is SpotCheckState.AGREED, f"{name}: the right digest is known and not used"
        )
        _must(
            first is None or first.digest == check.correct_digest,
            f"{check.tile} is known to be wrong",
        )
    elif check.state is SpotCheckState.AGREED:
        _must(first is not None and second is not None, f"{name} agrees with nothing")
        both = {(one.device, one.digest) for one in (first, second) if one is not None}
        _must(len({device for device, _ in both}) == 2, f"{name} was checked by its own device")
        _must(len({digest for _, digest in both}) == 1, f"{name} differs and nobody minds")
    if check.check_tile in check.check_tile.job.check_tiles and check.tile.job.remaining == 0:
        others = (
            one.id not in check.check_tile.excluded_devices
            for one in table.fleet.able(check.check_tile.job)
        )
        _must(any(others), f"{name} holds its job up for nobody")


def _check_tile(table: LeaseTable, tile: TileState, pending: set[AnyTimer]) -> None:
    name = f"{tile.job.id}/{tile.index}"
    queues = (tile.job.waiting, tile.job.with_exclusions, tile.job.suspects, tile.job.check_tiles)
    queued = sum(tile in queue for queue in queues)
    backs_off = tile in pending
    waits = not tile.done and not tile.leases and not tile.is_dormant
    _must(backs_off == (tile.wake_at is not None), f"{name}: its back-off has no timer")
    _must(queued + backs_off == waits, f"{name}: {queued} queues, back-off {backs_off}")
    _must(
        not (tile in tile.job.waiting and tile.excluded),
        f"{name} excludes devices and waits for any",
    )
    _must(
        (tile in tile.job.check_tiles) <= tile.is_check_tile, f"{name} waits with the check tiles"
    )
    has_result = tile.done_before or tile.split or tile.kept is not None
    _must(tile.is_check_tile or tile.done == has_result, f"{name}: done is {tile.done}")
    _must(not (tile.done_before and tile.grants), f"{name} was done before, and given to somebody")
    _must(not (tile.split and tile.kept), f"{name} was split and has a result")
    _must(not (tile.done and tile.leases), f"{name} is done and leased")
    devices = [lease.device for lease in tile.leases]
    _must(len(devices) <= 2, f"{name} has {len(devices)} leases")
    _must(len(set(devices)) == len(devices), f"{name} is leased twice to {devices[0:1]}")
    for lease in tile.leases:
        _check_lease(table, lease, pending)


def _check_lease(table: LeaseTable, lease: Lease, pending: set[AnyTimer]) -> None:
    name = f"{lease.tile.job.id}/{lease.tile.index}#{lease.attempt}"
    _must(lease in pending, f"{name} never expires")
    excluded_devices = lease.tile.job.refuted
    if lease.tile.check is not None and lease.tile.is_check_tile:
        first = lease.tile.check.tile.kept
        _must(first is not None, f"{name} checks a tile without a result")
        excluded_devices |= {first.device} if first else frozenset()
    _must(lease.device not in excluded_devices, f"{name}: {lease.device} must not have it")
    _must(lease.tile.grants[lease.attempt - 1] is lease, f"{name} is not its attempt")
    held = table.fleet.devices[lease.device].leases.get(lease.tile)
    _must(held is lease, f"{name}: {lease.device} does not know of it")
    _must(lease.wake_at is not None and lease.wake_at > table.fired_until, f"{name} is overdue")


def _check_device(table: LeaseTable, device: DeviceState, pending: set[AnyTimer]) -> None:
    fleet, name = table.fleet, device.id
    for tile, lease in device.leases.items():
        _must(lease in tile.leases, f"{name} holds {tile} and the tile does not know")
        _must(tile.job.id in table.jobs, f"{name} holds {tile} of a job that has ended")
    held = len(device.leases)
    _must(device.online or not held, f"{name} is lost and holds {held} tiles")
    _must(held <= table.policy.max_window, f"{name} holds {held} tiles")
    suspects = sum(lease.exclusive for lease in device.leases.values())
    _must(not suspects or held == 1, f"{name} holds {held} tiles beside a suspect")
    _must(device.exclusive == (suspects > 0), f"{name}: alone is {device.exclusive}")
    has_room = held < fleet.window(device)
    _must(has_room == (name in fleet.with_room), f"{name}: room is {has_room}")
    is_idle = has_room and held < device.workers
    _must(is_idle == (name in fleet.idle), f"{name}: idle is {is_idle}")
    _must((held > 0) == (name in fleet.busy), f"{name}: busy is {held > 0}")
    waits = device.quarantined or device.paused
    _must(waits == (device in pending), f"{name}: waits is {waits}, without a timer")
    for kind, service_time in device.service_times.items():
        _must(0 <= service_time.rate < math.inf, f"{name}: {kind} takes {service_time.rate} s")


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)
