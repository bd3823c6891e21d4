"""Which devices are present, from the messages that devices publish.

A device is present while its status is `online`, its info is known, and messages arrive from it.
The last will alone proves nothing: the broker may deliver it late, after the device has come back.
So any check-in that is not retained marks the device as online, whatever its status says. A device
can also hang while its connection lives. Only its silence shows that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from fogmqtt.core.scheduling.events import DeviceDraining, DeviceJoined, DeviceLost, Event

#: A device is lost after this many seconds without a message: four check-ins of 5 s.
SILENCE_S = 20.0
#: The maximum number of known devices. Ids come from the network, so memory needs a bound. Beyond
#: it a new device replaces one that is not announced; if all are announced, it is ignored.
MAX_KNOWN_DEVICES = 4096


class DeviceDescription(msgspec.Struct, frozen=True):
    """The part of a device's info that the scheduler needs."""

    boot: str
    workers: int
    operators: frozenset[str]
    draining: bool = False
    #: Why the device lacks an operator, where the reason is known.
    lacks: Mapping[str, str] = msgspec.field(default_factory=dict)
    #: The largest tile that the device accepts.
    max_tile_pixels: float = math.inf


@dataclass(slots=True)
class _Device:
    online: bool = False
    description: DeviceDescription | None = None
    last_message_at: float = 0.0
    #: The description in the last DeviceJoined; None before the first one and after DeviceLost.
    announced: DeviceDescription | None = None


@dataclass(slots=True)
class Presence:
    """Turns messages of devices into the events DeviceJoined, DeviceDraining and DeviceLost.

    All times are monotonic seconds. The caller passes the returned events to the scheduler.
    """

    silence_s: float = SILENCE_S
    _devices: dict[str, _Device] = field(default_factory=dict)
    #: The devices that are not announced, the oldest first.
    _unannounced: dict[str, None] = field(default_factory=dict)
    #: No device is silent for too long before this time.
    _next_check_at: float = math.inf

    def accepts(self, device: str) -> bool:
        """Return whether messages of this device can be recorded; if not, they change nothing."""
        return device in self._devices or bool(self._unannounced) or not self._is_full

    def status(self, device: str, online: bool, now: float) -> list[Event]:
        """Record a message on the status topic, from the device or its last will."""
        known = self._remember(device)
        if known is None:
            return []
        known.online = online
        known.last_message_at = now
        return self._announce(device) if online else self._lose(device, "it went offline")

    def info(
        self, device: str, description: DeviceDescription, retained: bool, now: float
    ) -> list[Event]:
        """Record an info. A retained info does not prove that its device still runs."""
        known = self._remember(device)
        if known is None:
            return []
        known.description = description
        if not retained:
            known.online = True
        known.last_message_at = now
        return self._announce(device)

    def redescribe(self, device: str, description: DeviceDescription) -> list[Event]:
        """Replace the description of a device, although the device sent no message."""
        known = self._devices.get(device)
        if known is None:
            return []
        known.description = description
        return self._announce(device)

    def message_received(self, device: str, now: float) -> None:
        """Record that the device sent a message about a tile."""
        if device in self._devices:
            self._devices[device].last_message_at = now

    def expire(self, now: float) -> list[Event]:
        """Return a DeviceLost for each device that has been silent for `silence_s`."""
        if now < self._next_check_at:
            return []
        events: list[Event] = []
        for device, known in self._devices.items():
            if known.announced and now - known.last_message_at >= self.silence_s:
                known.online = False
                events += self._lose(device, f"no message from it for {self.silence_s:g} s")
        times = (known.last_message_at for known in self._devices.values() if known.announced)
        self._next_check_at = min(times, default=math.inf) + self.silence_s
        return events

    def broker_lost(self) -> None:
        """Forget all devices: after a reconnect the retained topics describe them again."""
        self._devices.clear()
        self._unannounced.clear()
        self._next_check_at = math.inf

    def present(self) -> dict[str, DeviceDescription]:
        """Return the announced devices by id."""
        return {
            device: known.announced for device, known in self._devices.items() if known.announced
        }

    def description(self, device: str) -> DeviceDescription | None:
        """What the scheduler was told of one device; None where it is not present."""
        known = self._devices.get(device)
        return known.announced if known else None

    def next_wakeup(self) -> float | None:
        """Return the earliest time at which `expire` may return an event, or None."""
        return None if self._next_check_at == math.inf else self._next_check_at

    @property
    def _is_full(self) -> bool:
        return len(self._devices) >= MAX_KNOWN_DEVICES

    def _remember(self, device: str) -> _Device | None:
        """Return the record of a device, or None if there is no room for a new one."""
        if not self.accepts(device):
            return None
        if device not in self._devices:
            if self._is_full:
                self._forget_oldest()
            self._devices[device] = _Device()
            self._unannounced[device] = None
        return self._devices[device]

    def _forget_oldest(self) -> None:
        oldest = next(iter(self._unannounced))
        del self._unannounced[oldest], self._devices[oldest]

    def _announce(self, device: str) -> list[Event]:
        known = self._devices[device]
        description = known.description
        if not known.online or description is None or description == known.announced:
            return []
        known.announced = description
        self._unannounced.pop(device, None)
        self._next_check_at = min(self._next_check_at, known.last_message_at + self.silence_s)
        joined = DeviceJoined(
            device,
            description.boot,
            description.workers,
            description.operators,
            description.lacks,
            description.max_tile_pixels,
        )
        return [joined, DeviceDraining(device)] if description.draining else [joined]

    def _lose(self, device: str, reason: str) -> list[Event]:
        known = self._devices[device]
        if known.announced is None:
            return []
        known.announced = None
        self._unannounced[device] = None
        return [DeviceLost(device, reason)]
