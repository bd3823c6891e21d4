"""The devices, as their retained topics describe them, and which of them can do a stage."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from fogmqtt import __version__
from fogmqtt.conformance.report import ConformanceReport
from fogmqtt.core.presence import MAX_KNOWN_DEVICES, DeviceDescription, Presence
from fogmqtt.core.release import is_older
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
from fogmqtt.gateway.devices.links import DeviceLinks
from fogmqtt.gateway.events import DeviceCame, DeviceLeft, EventBus
from fogmqtt.log import RateLimitedLog, one_line
from fogmqtt.operators.api.pipeline import Stage
from fogmqtt.wire.messages import Decoder, DeviceInfo
from fogmqtt.wire.topics import LOCAL, OFFLINE, ONLINE

log = logging.getLogger(__name__)

#: The largest info message that is read, in bytes; ours have about 6 kB. It comes from the network.
MAX_INFO_BYTES = 65_536
#: The bytes of all info messages that are kept.
MAX_INFOS_BYTES = 32_000_000
#: Log lines about devices that come or go, per second: a small fleet is logged, a flood is not.
DEVICE_LINES_PER_S = 50
#: The announced speed of a device is limited to this many times our own, up and down.
_MAX_SPEED_RATIO = 100.0


class Machine(Struct, frozen=True):
    """A machine by its host name and by the id that all programs on its cores share, or empty."""

    host: str = ""
    id: str = ""

    def is_same(self, other: Machine) -> bool:
        """Whether both are probably one machine. Host names decide if an id is unknown.

        Boards with a copy of one memory card have the same name, and each container has its own.
        """
        if self.id and other.id:
            return self.id == other.id
        return self.host == other.host


class AbleDevice(Struct, frozen=True):
    """A device that can do tiles of a stage now."""

    boot: str
    workers: int
    machine: Machine = Machine()
    #: The speed of one of its workers as a multiple of one of our cores; 1 if it is unknown.
    relative_speed: float = 1.0


class DeviceView(Struct, frozen=True):
    """A device as users and programs see it."""

    id: str
    online: bool
    info: DeviceInfo
    #: The abilities that it may be used for, as operator/dtype.
    abilities: frozenset[str]
    #: Every other ability, with the reason.
    lacks: Mapping[str, str]
    #: The part of `lacks` that it computes differently from this gateway.
    differs: Mapping[str, str]

    @property
    def version_remark(self) -> str:
        """What to say of a device with another version of fogmqtt than this gateway's, or ""."""
        theirs = one_line(self.info.versions.get("fogmqtt", ""))[:40]
        if theirs in ("", __version__):
            return ""
        if is_older(__version__, theirs):
            advice = f"install {theirs} on the gateway, too"
        elif self.info.updates:
            advice = f"fog-gateway update {self.id}"
        else:
            advice = (
                f"install it again, such as by the line of fog-gateway invite --replace {self.id}"
            )
        return f"runs fogmqtt {theirs}, and this gateway {__version__}: {advice}"


class DeviceRegistry:
    """Follows the devices' topics. It belongs to the event loop.

    `feed` passes an event to the scheduler. `warm` lets a device that joins start its workers.
    """

    def __init__(
        self,
        feed: Callable[[Event], None],
        compatibility: Compatibility,
        warm: Callable[[str], None] | None = None,
        events: EventBus | None = None,
        links: DeviceLinks | None = None,
    ) -> None:
        self._feed = feed
        self._warm = warm
        self._bus = events or EventBus()
        self._links = links or DeviceLinks()
        self.compatibility = compatibility
        self._presence = Presence()
        self._decoder = Decoder(DeviceInfo)
        #: The newest info of every device.
        self.infos: dict[str, DeviceInfo] = {}
        self._sizes: dict[str, int] = {}
        self._device_log = RateLimitedLog(DEVICE_LINES_PER_S)
        self._infos_bytes = 0
        #: Problems of this gateway's conformance run that are logged.
        self._problems: list[str] = []
        #: The devices that the log calls online, and those that take no more tiles.
        self._said_online: set[str] = set()
        self._leaving: set[str] = set()

    def received(
        self, device: str, leaf: str, payload: bytes | memoryview, retained: bool, now: float
    ) -> None:
        """Take a message on devices/<device>/status or /info. Raises WireError if it is invalid."""
        if device == LOCAL:
            raise WireError(f"a device has the id {LOCAL!r}, which names a gateway's own cores")
        if not self._presence.accepts(device):
            raise WireError(f"{MAX_KNOWN_DEVICES} devices are known: there is no room for {device}")
        if leaf == "info":
            self._take_info(device, payload, retained, now)
        elif payload in (ONLINE, OFFLINE):
            self._apply(self._presence.status(device, payload == ONLINE, now), now)
        elif payload:
            raise WireError(
                f"{device} has the status {bytes(payload[:40])!r}; expected online or offline"
            )

    def note_message(self, device: str, now: float) -> None:
        """Note that a device sent a message, so it is not silent."""
        self._presence.message_received(device, now)

    def next_silence(self) -> float | None:
        """Return when a device may have been silent for too long; None if there is none."""
        return self._presence.next_wakeup()

    def lose_silent(self, confirmed_at: float) -> None:
        """Lose the devices that had been silent for too long at `confirmed_at`.

        All that arrived before that time must have been handled.
        """
        self._apply(self._presence.expire(confirmed_at), confirmed_at)

    def broker_lost(self) -> None:
        """Keep no device online: their topics come in again with the next connection."""
        self._presence.broker_lost()
        self._said_online.clear()
        self._leaving.clear()

    def workers(self) -> int:
        """Return the number of workers of all devices that are online."""
        return sum(description.workers for description in self._presence.present().values())

    def conformance_known(self, report: ConformanceReport) -> None:
        """Compare every device with this gateway's conformance report; more may follow."""
        for problem in report.problems:
            if problem not in self._problems:
                log.warning("%s", one_line(problem))
        self._problems = report.problems
        self.compatibility.set_reference(report)
        moment = now()
        for device, info in self.infos.items():
            self._apply(self._presence.redescribe(device, self._describe(info)), moment)

    def operators(self, device: str) -> frozenset[str]:
        """Return the abilities of a device; none if it is offline."""
        description = self._presence.present().get(device)
        return description.operators if description else frozenset()

    def present(self) -> tuple[str, ...]:
        """Return the ids of the devices that are online, in order."""
        return tuple(sorted(self._presence.present()))

    def view(self, device: str) -> DeviceView | None:
        """Return a device that has sent its info, online or not; None if it is unknown."""
        info = self.infos.get(device)
        if info is None:
            return None
        description = self._presence.present().get(device)
        return DeviceView(
            id=device,
            online=description is not None,
            info=info,
            abilities=description.operators if description else frozenset(),
            lacks=self.compatibility.check(info).lacks,
            differs=self.compatibility.differences(info),
        )

    def views(self) -> tuple[DeviceView, ...]:
        """Return all devices that have sent their info, in the order of their ids."""
        views = (self.view(device) for device in sorted(self.infos))
        return tuple(view for view in views if view is not None)

    def able(self, ready: Iterable[str], stage: Stage) -> dict[str, AbleDevice]:
        """Return the devices among `ready` that can do a stage's tiles, by id."""
        needs = self.compatibility.needs(stage)
        names = [operator.name for operator in stage.operators]
        ours, present = self.compatibility.rates, self._presence.present()
        return {
            device: AbleDevice(
                info.boot,
                info.workers,
                Machine(info.host, info.machine),
                _relative_speed(names, ours, info.rates),
            )
            for device in ready
            if (info := self.infos.get(device)) is not None
            and device in present
            and needs <= present[device].operators
        }

    def _take_info(
        self, device: str, payload: bytes | memoryview, retained: bool, now: float
    ) -> None:
        if not payload:
            # Somebody cleared the topic: the device is gone for good, or its next check-in fills
            # it.
            if device not in self._presence.present():
                self._forget(device)
            return
        if len(payload) > MAX_INFO_BYTES:
            raise WireError(f"{device} has an info of {len(payload)} bytes, over {MAX_INFO_BYTES}")
        info = self._decoder.decode(payload)
        self._keep_info(device, info, len(payload))
        self._links.announced(device, info.codecs)
        self._apply(self._presence.info(device, self._describe(info), retained, now), now)
        if not retained and self._presence.description(device) is not None:
            # These include tiles of other gateways, so that a busy device does not look slow.
            self._feed(DeviceReported(device, info.tiles_held))

    def _describe(self, info: DeviceInfo) -> DeviceDescription:
        check = self.compatibility.check(info)
        return DeviceDescription(
            info.boot,
            info.workers,
            check.abilities,
            info.draining,
            check.lacks,
            info.max_tile_pixels or math.inf,
        )

    def _keep_info(self, device: str, info: DeviceInfo, size: int) -> None:
        more = size - self._sizes.get(device, 0)
        if self._infos_bytes + more > MAX_INFOS_BYTES or len(self.infos) >= 2 * MAX_KNOWN_DEVICES:
            self._forget_absent()
        more = size - self._sizes.get(device, 0)
        if self._infos_bytes + more > MAX_INFOS_BYTES:
            raise WireError(f"no room for the info of {device}: {MAX_INFOS_BYTES} bytes are kept")
        self.infos[device] = info
        self._sizes[device] = size
        self._infos_bytes += more

    def _forget(self, device: str) -> None:
        self.infos.pop(device, None)
        self._infos_bytes -= self._sizes.pop(device, 0)

    def _forget_absent(self) -> None:
        """Drop the infos of devices that are offline."""
        present = self._presence.present()
        self.infos = {device: info for device, info in self.infos.items() if device in present}
        self._sizes = {device: self._sizes[device] for device in self.infos}
        self._infos_bytes = sum(self._sizes.values())

    def _apply(self, events: list[Event], now: float) -> None:
        """Log and publish changes of presence, and pass them to the scheduler."""
        for event in events:
            match event:
                case DeviceJoined(device, workers=workers):
                    self._log_online(device, workers, now)
                    if self._warm is not None:
                        self._warm(device)
                    self._bus.emit(DeviceCame(device))
                case DeviceLost(device, reason):
                    self._log_offline(device, reason, now)
                    self._bus.emit(DeviceLeft(device, reason))
                case DeviceDraining(device):
                    self._device_log.log(
                        logging.INFO, f"{device} takes no more tiles", now, device=device
                    )
                    self._leaving.add(device)
                    self._bus.emit(DeviceLeft(device, "it takes no more tiles"))
            self._feed(event)

    def _log_online(self, device: str, workers: int, now: float) -> None:
        """Log that a device came; a new description of one that is there is no news."""
        self._leaving.discard(device)
        if device not in self._said_online:
            self._said_online.add(device)
            self._device_log.log(
                logging.INFO, f"{device} is online, {workers} worker(s)", now, device=device
            )

    def _log_offline(self, device: str, reason: str, now: float) -> None:
        """Log that a device is gone, as a warning unless it took its leave before."""
        self._said_online.discard(device)
        if device in self._leaving:
            self._leaving.discard(device)
            self._device_log.log(logging.INFO, f"{device} has left", now, device=device)
        else:
            self._device_log.log(logging.WARNING, f"{device} is lost: {reason}", now, device=device)


def _relative_speed(
    names: Iterable[str], ours: Mapping[str, float], theirs: Mapping[str, float]
) -> float:
    """Return the speed of a worker as a multiple of one of our cores; 1 if it is unknown.

    `ours` and `theirs` are nanoseconds per pixel, by operator.
    """
    common = [name for name in names if name in ours and name in theirs]
    our_ns, their_ns = (sum(rates[name] for name in common) for rates in (ours, theirs))
    if not our_ns > 0 or not their_ns > 0:  # NaN, too
        return 1.0
    return min(max(our_ns / their_ns, 1 / _MAX_SPEED_RATIO), _MAX_SPEED_RATIO)
