"""What a result tells beside its pixels: how fast its device is, and which results were lost."""

from __future__ import annotations

from fogmqtt.core.scheduling.actions import DistrustTimings
from fogmqtt.core.scheduling.device import DeviceState
from fogmqtt.core.scheduling.events import ResultArrived
from fogmqtt.core.scheduling.leases import OVERTAKEN_S, Leases
from fogmqtt.core.scheduling.state import Lease


def measure(books: Leases, lease: Lease, event: ResultArrived) -> bool:
    """Learn from a result. Returns False if its timings were impossible and not used."""
    kind, device = lease.tile.job.kind, books.fleet.get(lease.device)
    if device is None:
        return True
    is_first = not books.fleet.speeds.measured(device, kind)
    sane = _is_possible(books, lease, event)
    compute_s, start_s = (event.compute_s, event.start_s) if sane else (None, None)
    books.fleet.learn(device, lease, books.now, compute_s or 0.0, start_s or 0.0)
    for other in _overtaken(device, lease):
        books.hurry(other, OVERTAKEN_S)
    if is_first:
        # Their leases were made for a device that nobody knew.
        for other in device.leases.values():
            if other.accepted and other.tile.job.kind == kind:
                books.hurry(other, books.lease_s(other))
    return sane


def _is_possible(books: Leases, lease: Lease, event: ResultArrived) -> bool:
    """Whether it can have spent so long. It may have had the tile since an earlier lease."""
    parts = [part for part in (event.compute_s, event.start_s) if part is not None]
    most_s = books.now - lease.tile.first_granted(lease.device)
    return all(part >= 0 for part in parts) and sum(parts) <= most_s


def distrust(books: Leases, lease: Lease, event: ResultArrived) -> None:
    """Tell of an impossible claim: in the job's story each time, to the world once per start."""
    device = books.fleet.get(lease.device)
    start = f" and {event.start_s} s of starting" if event.start_s else ""
    within_s = books.now - lease.granted_at
    claim = f"claims {event.compute_s} s of work{start} within {within_s:.2f} s"
    books.tell(lease, claim)
    if device is not None and device.distrusted != device.boot:
        device.distrusted = device.boot
        books.act(DistrustTimings(device.id, claim))


def _overtaken(device: DeviceState, lease: Lease) -> list[Lease]:
    """Tiles begun before this one that no worker can have any more: their results are lost."""
    if lease.tile.first_granted(device.id) < lease.granted_at:
        return []  # it may have been begun under an earlier lease
    older = [
        other
        for other in device.leases.values()
        if other.accepted and other.granted_at < lease.granted_at
    ]
    return older[: max(0, len(older) - device.workers + 1)]
