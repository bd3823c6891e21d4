"""Who is there: the gateway's fold over what devices say of themselves.

A device is present while its status is `online`, its info is known, and it is heard from. Its
last will is a fast hint and no more: the broker may send it late, after the device is back, so
any check-in that was said just now proves life, whatever the status says. And a device may
hang without its connection breaking: then only its silence tells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from fogmqtt.core.scheduling.events import DeviceDraining, DeviceJoined, DeviceLost, Event

#: Seconds without a word after which a device counts as lost: four check-ins of 5 s.
SILENCE_S = 20.0
#: More than this, and one that is away is forgotten; where all are there, no other is taken: ids
#: come from the network.
KNOWN_DEVICES = 4096


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a device's info says that matters to the scheduler."""

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
    #: What the scheduler was told last; None: that the device is lost, or nothing yet.
    announced: Introduction | None = None


@dataclass(slots=True)
class Presence:
    """Feed it what arrives; hand the events that it returns to the scheduler."""

    silence_s: float = SILENCE_S
    _devices: dict[str, _Device] = field(default_factory=dict)
    #: Those that the scheduler was not told of, the oldest first.
    _strangers: dict[str, None] = field(default_factory=dict)
    #: Nobody is silent for too long before this.
    _look_at: float = math.inf

    def has_room(self, device: str) -> bool:
        """Whether a word of this device can be taken; where not, it changes nothing."""
        return device in self._devices or bool(self._strangers) or not self._is_full

    def status(self, device: str, online: bool, now: float) -> list[Event]:
        """The retained status topic spoke: the device itself or its last will."""
        known = self._remember(device)
        if known is None:
            return []
        known.online = online
        known.heard_at = now
        return self._tell(device) if online else self._lose(device, "it went offline")

    def info(
        self, device: str, introduction: Introduction, retained: bool, now: float
    ) -> list[Event]:
        """The device introduced itself, or checked in. A retained info may be a dead one's."""
        known = self._remember(device)
        if known is None:
            return []
        known.introduction = introduction
        if not retained:
            known.online = True
        known.heard_at = now
        return self._tell(device)

    def judged(self, device: str, introduction: Introduction) -> list[Event]:
        """What a device offers is seen differently now; it said nothing itself."""
        known = self._devices.get(device)
        if known is None:
            return []
        known.introduction = introduction
        return self._tell(device)

    def heard(self, device: str, now: float) -> None:
        """The device spoke of its work."""
        if device in self._devices:
            self._devices[device].heard_at = now

    def silent(self, now: float) -> list[Event]:
        """Lose the devices that have not been heard from for too long."""
        if now < self._look_at:
            return []
        events: list[Event] = []
        for device, known in self._devices.items():
            if known.announced and now - known.heard_at >= self.silence_s:
                known.online = False
                events += self._lose(device, f"nothing was heard from it for {self.silence_s:g} s")
        heard = (known.heard_at for known in self._devices.values() if known.announced)
        self._look_at = min(heard, default=math.inf) + self.silence_s
        return events

    def broker_lost(self) -> None:
        """Our own link broke: forget who is there; retained topics will tell anew."""
        self._devices.clear()
        self._strangers.clear()
        self._look_at = math.inf

    def present(self) -> dict[str, Introduction]:
        """The devices that the scheduler was told of, by id."""
        return {
            device: known.announced for device, known in self._devices.items() if known.announced
        }

    def next_wakeup(self) -> float | None:
        """When `silent` may have something to say."""
        return None if self._look_at == math.inf else self._look_at

    @property
    def _is_full(self) -> bool:
        return len(self._devices) >= KNOWN_DEVICES

    def _remember(self, device: str) -> _Device | None:
        """What is known of a device; None where there is no room for it."""
        if not self.has_room(device):
            return None
        if device not in self._devices:
            if self._is_full:
                self._forget_one()
            self._devices[device] = _Device()
            self._strangers[device] = None
        return self._devices[device]

    def _forget_one(self) -> None:
        oldest = next(iter(self._strangers))
        del self._strangers[oldest], self._devices[oldest]

    def _tell(self, device: str) -> list[Event]:
        known = self._devices[device]
        introduction = known.introduction
        if not known.online or introduction is None or introduction == known.announced:
            return []
        known.announced = introduction
        self._strangers.pop(device, None)
        self._look_at = min(self._look_at, known.heard_at + self.silence_s)
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
        self._strangers[device] = None
        return [DeviceLost(device, reason)]
