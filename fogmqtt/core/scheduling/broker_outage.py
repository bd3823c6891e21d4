"""A lost broker: every lease is void, and yet devices work on with what they have."""

from __future__ import annotations

from fogmqtt.core.scheduling.device import DeviceState
from fogmqtt.core.scheduling.leases import Leases
from fogmqtt.core.scheduling.placement import may_have
from fogmqtt.core.scheduling.state import Lease, TileState


def take_all_back(books: Leases) -> None:
    """No device is there, nobody is to blame; what they hold comes last if it is not theirs."""
    void: list[Lease] = []
    for device in books.fleet.devices.values():
        device.void += [tile for tile, lease in device.leases.items() if lease.accepted]
        books.fleet.lose(device)
        device.misses = 0
        void += device.leases.values()
    for lease in void:
        books.release(lease)
    for lease in void:
        books.again(lease.tile, later=True)


def give_again(books: Leases, device: DeviceState) -> None:
    """It is back and still has what it held before: that stays its own, where it still can."""
    tiles, device.void = device.void, []
    lost = [tile for tile in tiles if not _regrant(books, tile, device)]
    books.fleet.occupy(device, [tile for tile in lost if not tile.done], books.now)


def _regrant(books: Leases, tile: TileState, device: DeviceState) -> bool:
    is_free = tile.job.id in books.jobs and tile in tile.job.ready
    if not is_free or not may_have(tile, device):
        return False
    if len(device.leases) >= books.fleet.window(device):
        return False
    books.grant(tile, device)
    return True
