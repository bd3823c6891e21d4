"""Which devices are present, judged by their status and info topics.

A device is present while its status is `online`, its info is known, and it sends messages. Its last
will is only a hint: the broker may publish it late, after the device is back, so a check-in that
was just sent proves life whatever the status says. A device may also hang without its connection
breaking. Then only its silence shows that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from fogmqtt.core.scheduling.events import DeviceDraining, DeviceJoined, DeviceLost, Event

#: A device that is silent for this many seconds is lost: four check-ins of 5 s.
SILENCE_S = 20.0
#: Above this number an absent device is forgotten, and no new device is admitted while all are
#: present: ids come from the network.
KNOWN_DEVICES = 4096


@dataclass(frozen=True, slots=True)
class Introduction:
    """What the scheduler needs of a device's info."""

    boot: str
    workers: int
    operators: frozenset[str]
    draining: bool = False
    #: Why it does not offer an operator, where that is known.
    lacks: Mapping[str, str] = field(default_factory=dict, hash=False)
    #: It takes no larger tile.
    max_tile_pixels: float = math.inf


@dataclass(slots=True)
class _Device:
    online: bool = False
    introduction: Introduction | None = None
    heard_at: float = 0.0
    #: What the scheduler was told last; None if the device is lost or was never announced.
    announced: Introduction | None = None


@dataclass(slots=True)
class Presence:
    """Feed it the devices' messages; pass the returned events to the scheduler."""

    silence_s: float = SILENCE_S
    _devices: dict[str, _Device] = field(default_factory=dict)
    #: Devices that the scheduler does not know, the oldest first.
    _unannounced: dict[str, None] = field(default_factory=dict)
    #: No device can be silent for too long before this time.
    _next_check_at: float = math.inf

    def has_room(self, device: str) -> bool:
        """Whether a message of this device can be stored; otherwise it changes nothing."""
        return device in self._devices or bool(self._unannounced) or not self._is_full

    def status(self, device: str, online: bool, now: float) -> list[Event]:
        """The retained status topic changed: by the device itself or its last will."""
        known = self._remember(device)
        if known is None:
            return []
        known.online = online
        known.heard_at = now
        return self._announce(device) if online else self._lose(device, "it went offline")

    def info(
        self, device: str, introduction: Introduction, retained: bool, now: float
    ) -> list[Event]:
        """The device published its info, or checked in. A retained info may be out of date."""
        known = self._remember(device)
        if known is None:
            return []
        known.introduction = introduction
        if not retained:
            known.online = True
        known.heard_at = now
        return self._announce(device)

    def judged(self, device: str, introduction: Introduction) -> list[Event]:
        """The gateway judges a device's info differently now; the device sent nothing."""
        known = self._devices.get(device)
        if known is None:
            return []
        known.introduction = introduction
        return self._announce(device)

    def heard(self, device: str, now: float) -> None:
        """The device sent a message about its work."""
        if device in self._devices:
            self._devices[device].heard_at = now

    def silent(self, now: float) -> list[Event]:
        """Declare devices lost that have been silent for too long."""
        if now < self._next_check_at:
            return []
        events: list[Event] = []
        for device, known in self._devices.items():
            if known.announced and now - known.heard_at >= self.silence_s:
                known.online = False
                events += self._lose(device, f"nothing was heard from it for {self.silence_s:g} s")
        heard = (known.heard_at for known in self._devices.values() if known.announced)
        self._next_check_at = min(heard, default=math.inf) + self.silence_s
        return events

    def broker_lost(self) -> None:
        """The gateway lost the broker: forget all devices. Retained topics will tell anew."""
        self._devices.clear()
        self._unannounced.clear()
        self._next_check_at = math.inf

    def present(self) -> dict[str, Introduction]:
        """The devices that the scheduler knows as present, by id."""
        return {
            device: known.announced for device, known in self._devices.items() if known.announced
        }

    def introduction(self, device: str) -> Introduction | None:
        """What the scheduler was told of one device; None where it is not present."""
        known = self._devices.get(device)
        return known.announced if known else None

    def next_wakeup(self) -> float | None:
        """When `silent` may return events."""
        return None if self._next_check_at == math.inf else self._next_check_at

    @property
    def _is_full(self) -> bool:
        return len(self._devices) >= KNOWN_DEVICES

    def _remember(self, device: str) -> _Device | None:
        """The record of a device, created if necessary; None if there is no room for it."""
        if not self.has_room(device):
            return None
        if device not in self._devices:
            if self._is_full:
                self._forget_one()
            self._devices[device] = _Device()
            self._unannounced[device] = None
        return self._devices[device]

    def _forget_one(self) -> None:
        oldest = next(iter(self._unannounced))
        del self._unannounced[oldest], self._devices[oldest]

    def _announce(self, device: str) -> list[Event]:
        known = self._devices[device]
        introduction = known.introduction
        if not known.online or introduction is None or introduction == known.announced:
            return []
        known.announced = introduction
        self._unannounced.pop(device, None)
        self._next_check_at = min(self._next_check_at, known.heard_at + self.silence_s)
        joined = DeviceJoined(
            device,
            introduction.boot,
            introduction.workers,
            introduction.operators,
            introduction.lacks,
            introduction.max_tile_pixels,
        )
        return [joined, DeviceDraining(device)] if introduction.draining else [joined]

    def _lose(self, device: str, reason: str) -> list[Event]:
        known = self._devices[device]
        if known.announced is None:
            return []
        known.announced = None
        self._unannounced[device] = None
        return [DeviceLost(device, reason)]
