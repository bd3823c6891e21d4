"""Links that broke: leases end, but the devices continue with what they hold."""

from __future__ import annotations

from fogmqtt.core.scheduling.device import DeviceState
from fogmqtt.core.scheduling.leases import LeaseTable
from fogmqtt.core.scheduling.placement import may_have
from fogmqtt.core.scheduling.state import Lease, TileState


def release_all_leases(table: LeaseTable) -> None:
    """End all leases without blame. Accepted tiles wait last, since their devices still work on
    them.
    """
    leases: list[Lease] = []
    table.silences.clear()
    for device in table.fleet.devices.values():
        table.fleet.lose(device)
        device.silences = 0
        leases += device.leases.values()
    for lease in leases:
        table.release(lease)
    for lease in leases:
        table.requeue(lease.tile, later=True)


def restore_leases(table: LeaseTable, device: DeviceState) -> None:
    """Lease to a device that is back what it held before, where that is still possible."""
    tiles = [lease.tile for lease in device.held_before_loss]
    device.held_before_loss = []
    lost = [tile for tile in tiles if not _regrant(table, tile, device)]
    table.fleet.occupy(device, [tile for tile in lost if not tile.done], table.now)


def _regrant(table: LeaseTable, tile: TileState, device: DeviceState) -> bool:
    is_free = tile.job.id in table.jobs and tile in tile.job.waiting
    has_room = len(device.leases) < table.fleet.window(device)
    if is_free and has_room and may_have(tile, device) and table.fleet.has_bytes_for(tile):
        table.grant(tile, device)
        return True
    return False
