"""What must be true of the scheduler's state after every event."""

from __future__ import annotations

from fogmqtt.core.books import Books, Sleeper
from fogmqtt.core.fleet import Device
from fogmqtt.core.ledger import Job, Lease, Tile


def check(books: Books) -> None:
    """Raises AssertionError, naming the tile or device, at the first contradiction."""
    sleepers = set(books.timers.sleepers())
    for job in books.jobs.values():
        _check_job(books, job, sleepers)
    for device in books.fleet.devices.values():
        _check_device(books, device, sleepers)
    for name in books.ended:
        _must(name not in books.jobs, f"job {name} runs and has ended")


def _check_job(books: Books, job: Job, sleepers: set[Sleeper]) -> None:
    for tile in job.tiles:
        _check_tile(books, tile, sleepers)
    undone = sum(not tile.done for tile in job.tiles)
    _must(job.remaining == undone, f"{job.id}: {job.remaining} remain, {undone} are undone")
    _must(undone > 0, f"{job.id} is done and runs")
    kept = sum(share.tiles for share in job.shares.values())
    _must(kept == len(job.tiles) - undone, f"{job.id}: {kept} kept results for {undone} undone")
    if job.waits:
        _must(books.placement.waiting(job), f"{job.id} waits and never has its turn")
    starved = not any(True for _ in books.fleet.able(job.operators))
    _must(starved == (job.starved_since is not None), f"{job.id}: starved is {starved}")


def _check_tile(books: Books, tile: Tile, sleepers: set[Sleeper]) -> None:
    name = f"{tile.job.id}/{tile.index}"
    queues = (tile.job.ready, tile.job.choosy, tile.job.suspects)
    queued = sum(tile in queue for queue in queues)
    backs_off = tile in sleepers
    waits = not tile.done and not tile.leases
    _must(backs_off == (tile.wake_at is not None), f"{name}: its back-off has no timer")
    _must(queued + backs_off == waits, f"{name}: {queued} queues, back-off {backs_off}")
    _must(not (tile in tile.job.ready and tile.shunned), f"{name} shuns, and waits for anybody")
    _must(not (tile.done and tile.leases), f"{name} is done and leased")
    devices = [lease.device for lease in tile.leases]
    _must(len(devices) <= 2, f"{name} has {len(devices)} leases")
    _must(len(set(devices)) == len(devices), f"{name} is leased twice to {devices[0:1]}")
    for lease in tile.leases:
        _check_lease(books, lease, sleepers)


def _check_lease(books: Books, lease: Lease, sleepers: set[Sleeper]) -> None:
    name = f"{lease.tile.job.id}/{lease.tile.index}#{lease.attempt}"
    _must(lease in sleepers, f"{name} never expires")
    _must(lease.tile.grants[lease.attempt - 1] is lease, f"{name} is not its attempt")
    held = books.fleet.devices[lease.device].leases.get(lease.tile)
    _must(held is lease, f"{name}: {lease.device} does not know of it")
    _must(lease.wake_at is not None and lease.wake_at > books.now, f"{name} is overdue")


def _check_device(books: Books, device: Device, sleepers: set[Sleeper]) -> None:
    fleet, name = books.fleet, device.id
    for tile, lease in device.leases.items():
        _must(lease in tile.leases, f"{name} holds {tile} and the tile does not know")
        _must(tile.job.id in books.jobs, f"{name} holds {tile} of a job that has ended")
    held = len(device.leases)
    _must(device.online or not held, f"{name} is lost and holds {held} tiles")
    _must(held <= books.policy.max_window, f"{name} holds {held} tiles")
    _must(not device.alone or held == 1, f"{name} holds {held} tiles beside a suspect")
    has_room = held < fleet.window(device)
    _must(has_room == (name in fleet.roomy), f"{name}: room is {has_room}")
    is_idle = has_room and held < device.workers
    _must(is_idle == (name in fleet.idle), f"{name}: idle is {is_idle}")
    _must((held > 0) == (name in fleet.busy), f"{name}: busy is {held > 0}")
    waits = device.quarantined or device.paused
    _must(waits == (device in sleepers), f"{name}: waits is {waits}, without a timer")


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)
