"""Devices at one moment, for those who show them. Nothing here changes the state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fogmqtt.core.scheduling.device import DeviceState


@dataclass(frozen=True, slots=True)
class LiveDevice:
    """A device as the scheduler judges it."""

    id: str
    online: bool
    draining: bool
    #: When its quarantine ends, on the scheduler's clock; None if it is in none.
    quarantined_until: float | None
    #: It gets one tile at a time until one succeeds.
    on_probation: bool
    #: It rejected a tile a moment ago.
    paused: bool
    #: Tiles in a row that it did not accept in time.
    silences: int
    #: Tiles of other gateways that it holds.
    held_for_others: int
    workers: int
    #: How many tiles it holds of each job, by the name of the job's stage.
    held: dict[str, int]


def live_devices(devices: Iterable[DeviceState]) -> tuple[LiveDevice, ...]:
    """Return all devices that the scheduler knows."""
    return tuple(_device(one) for one in devices)


def _device(device: DeviceState) -> LiveDevice:
    held: dict[str, int] = {}
    for tile in device.leases:
        held[tile.job.id] = held.get(tile.job.id, 0) + 1
    return LiveDevice(
        device.id,
        device.online,
        device.draining,
        device.wake_at if device.quarantined else None,
        device.probation,
        device.paused,
        device.silences,
        device.held_for_others,
        device.workers,
        held,
    )
