"""The devices as their retained topics describe them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fogmqtt.conformance.report import ConformanceReport
from fogmqtt.core.presence import MAX_KNOWN_DEVICES, DeviceDescription, Presence
from fogmqtt.core.scheduling.events import (
    DeviceDraining,
    DeviceJoined,
    DeviceLost,
    DeviceReported,
    Event,
)
from fogmqtt.errors import WireError
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.compatibility import Compatibility
from fogmqtt.gateway.events import DeviceCame, DeviceLeft, EventBus
from fogmqtt.log import RateLimitedLog, one_line
from fogmqtt.operators.api.pipeline import Stage
from fogmqtt.wire.messages import Decoder, DeviceInfo
from fogmqtt.wire.topics import LOCAL, OFFLINE, ONLINE

log = logging.getLogger(__name__)

#: The largest info that is read (ours have some 6 kB), and how many bytes of them are remembered:
#: both come from the network.
MAX_INFO_BYTES = 65_536
MAX_INFOS_BYTES = 32_000_000
#: Devices that come or go and are logged: a room full, and no flood.
NEWS_A_SECOND = 50


#: What is announced is not believed beyond this many times our own speed, either way.
_MOST = 100.0


@dataclass(frozen=True, slots=True)
class AbleDevice:
    """A device that can do a stage's tiles now."""

    boot: str
    workers: int
    host: str = ""
    #: The speed of one of its workers as a multiple of one of our cores, where it was announced.
    relative_speed: float = 1.0


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device for people and programs."""

    id: str
    online: bool
    info: DeviceInfo
    #: What it may do, as operator/dtype; all else that it has, with the reason why not.
    abilities: frozenset[str]
    lacks: Mapping[str, str]
    #: Of `lacks`, what it computes differently from this gateway.
    differs: Mapping[str, str]


class DeviceRegistry:
    """Follows the devices' topics. It belongs to the event loop.

    `feed` tells the scheduler. `warm` tells a device that joins that tiles may come.
    """

    def __init__(
        self,
        feed: Callable[[Event], None],
        compatibility: Compatibility,
        warm: Callable[[str], None] | None = None,
        events: EventBus | None = None,
    ) -> None:
        self._feed = feed
        self._warm = warm
        self._bus = events or EventBus()
        self.compatibility = compatibility
        self._presence = Presence()
        self._decoder = Decoder(DeviceInfo)
        #: The newest info of every device that introduced itself and is not forgotten.
        self.infos: dict[str, DeviceInfo] = {}
        self._sizes: dict[str, int] = {}
        self._news = RateLimitedLog(NEWS_A_SECOND)
        self._infos_bytes = 0

    def received(self, device: str, leaf: str, payload: bytes, retained: bool, now: float) -> None:
        """A message on devices/<device>/status or /info. Raises WireError for a strange one."""
        if device == LOCAL:
            raise WireError(f"a device calls itself {LOCAL!r}, which names a gateway's own cores")
        if not self._presence.accepts(device):
            raise WireError(f"{MAX_KNOWN_DEVICES} devices are here: no room for {device}")
        if leaf == "info":
            self._introduced(device, payload, retained, now)
        elif payload in (ONLINE, OFFLINE):
            self._tell(self._presence.status(device, payload == ONLINE, now), now)
        elif payload:
            raise WireError(f"{device} has the status {payload[:40]!r}; expected online or offline")

    def heard(self, device: str, now: float) -> None:
        self._presence.message_received(device, now)

    def tick(self, now: float) -> float | None:
        """Lose who is silent; returns when to look again."""
        self._tell(self._presence.expire(now), now)
        return self._presence.next_wakeup()

    def broker_lost(self) -> None:
        self._presence.broker_lost()

    def workers(self) -> int:
        """Tiles that the devices which are present work on at the same time."""
        return sum(introduction.workers for introduction in self._presence.present().values())

    def examined(self, found: ConformanceReport) -> None:
        """The gateway was examined: hold every device against that."""
        for problem in found.problems:
            log.warning("%s", one_line(problem))
        self.compatibility.examined(found)
        moment = now()
        for device, info in self.infos.items():
            self._tell(self._presence.redescribe(device, self._introduction(info)), moment)

    def operators(self, device: str) -> frozenset[str]:
        """What a device may do; nothing where it is not present."""
        introduction = self._presence.present().get(device)
        return introduction.operators if introduction else frozenset()

    def present(self) -> tuple[str, ...]:
        return tuple(sorted(self._presence.present()))

    def view(self, device: str) -> DeviceView | None:
        """A device that has introduced itself, online or not."""
        info = self.infos.get(device)
        if info is None:
            return None
        introduction = self._presence.present().get(device)
        judged = self.compatibility.judge(info)
        return DeviceView(
            id=device,
            online=introduction is not None,
            info=info,
            abilities=introduction.operators if introduction else frozenset(),
            lacks=judged.lacks,
            differs=self.compatibility.differs(info),
        )

    def views(self) -> tuple[DeviceView, ...]:
        """All devices that have introduced themselves, by name."""
        found = (self.view(device) for device in sorted(self.infos))
        return tuple(view for view in found if view is not None)

    def able(self, ready: Iterable[str], stage: Stage) -> dict[str, AbleDevice]:
        """Those of the `ready` devices that can do a stage's tiles."""
        needs = self.compatibility.needs(stage)
        names = [operator.name for operator in stage.operators]
        ours, present = self.compatibility.rates, self._presence.present()
        return {
            device: AbleDevice(
                info.boot, info.workers, info.host, _relative_speed(names, ours, info.rates)
            )
            for device in ready
            if (info := self.infos.get(device)) is not None
            and device in present
            and needs <= present[device].operators
        }

    def _introduced(self, device: str, payload: bytes, retained: bool, now: float) -> None:
        if not payload:
            return  # somebody cleared the topic; the next check-in fills it
        if len(payload) > MAX_INFO_BYTES:
            raise WireError(f"{device} has an info of {len(payload)} bytes, over {MAX_INFO_BYTES}")
        info = self._decoder.decode(payload)
        self._remember(device, info, len(payload))
        self._tell(self._presence.info(device, self._introduction(info), retained, now), now)
        if not retained and self._presence.description(device) is not None:
            # Tiles of other gateways among them: the device is busy, not slow.
            self._feed(DeviceReported(device, info.tiles_held))

    def _introduction(self, info: DeviceInfo) -> DeviceDescription:
        offer = self.compatibility.judge(info)
        return DeviceDescription(
            info.boot,
            info.workers,
            offer.abilities,
            info.draining,
            offer.lacks,
            info.max_tile_pixels or math.inf,
        )

    def _remember(self, device: str, info: DeviceInfo, size: int) -> None:
        more = size - self._sizes.get(device, 0)
        if self._infos_bytes + more > MAX_INFOS_BYTES or len(self.infos) >= 2 * MAX_KNOWN_DEVICES:
            self._forget_strangers()
        more = size - self._sizes.get(device, 0)
        if self._infos_bytes + more > MAX_INFOS_BYTES:
            raise WireError(f"no room for the info of {device}: {MAX_INFOS_BYTES} bytes are known")
        self.infos[device] = info
        self._sizes[device] = size
        self._infos_bytes += more

    def _forget_strangers(self) -> None:
        """Of who is not present only what they say next counts."""
        present = self._presence.present()
        self.infos = {device: info for device, info in self.infos.items() if device in present}
        self._sizes = {device: self._sizes[device] for device in self.infos}
        self._infos_bytes = sum(self._sizes.values())

    def _tell(self, events: list[Event], now: float) -> None:
        for event in events:
            match event:
                case DeviceJoined(device, workers=workers):
                    self._news.log(logging.INFO, f"{device} is here, {workers} worker(s)", now)
                    if self._warm is not None:
                        self._warm(device)
                    self._bus.emit(DeviceCame(device))
                case DeviceLost(device, reason):
                    self._news.log(logging.WARNING, f"{device} is lost: {reason}", now)
                    self._bus.emit(DeviceLeft(device, reason))
                case DeviceDraining(device):
                    self._news.log(logging.INFO, f"{device} takes no more tiles", now)
                    self._bus.emit(DeviceLeft(device, "it takes no more tiles"))
            self._feed(event)


def _relative_speed(
    names: Iterable[str], ours: Mapping[str, float], theirs: Mapping[str, float]
) -> float:
    """How many times as fast as one of our cores; 1 where that was not announced."""
    both = [name for name in names if name in ours and name in theirs]
    here, there = (sum(rates[name] for name in both) for rates in (ours, theirs))
    if not here > 0 or not there > 0:
        return 1.0
    return min(max(here / there, 1 / _MOST), _MOST)
