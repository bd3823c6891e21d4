"""Devices' retained topics, decoded into events for the scheduler, and a look at who is there."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fogmqtt.complaints import one_line
from fogmqtt.core.events import DeviceDraining, DeviceJoined, DeviceLost, Event
from fogmqtt.core.presence import Introduction, Presence
from fogmqtt.errors import WireError
from fogmqtt.examination.findings import Examination
from fogmqtt.gateway.standard import Standard
from fogmqtt.wire.messages import Decoder, DeviceInfo
from fogmqtt.wire.topics import LOCAL, OFFLINE, ONLINE

log = logging.getLogger(__name__)

#: More than this, and one that is away is forgotten: ids come from the network.
KNOWN_DEVICES = 4096


class Roster:
    """The devices as their topics tell, and `standard` judges."""

    def __init__(self, feed: Callable[[Event], None], standard: Standard) -> None:
        self._feed = feed
        self.standard = standard
        self._presence = Presence()
        self._decoder = Decoder(DeviceInfo)
        #: The newest info of every device that ever introduced itself here.
        self.infos: dict[str, DeviceInfo] = {}

    def received(self, device: str, leaf: str, payload: bytes, retained: bool, now: float) -> None:
        """A message on devices/<device>/status or /info. Raises WireError for a strange one."""
        if device == LOCAL:
            raise WireError(f"a device calls itself {LOCAL!r}, which names a gateway's own cores")
        if leaf == "info":
            self._introduced(device, payload, retained, now)
        elif payload in (ONLINE, OFFLINE):
            self._tell(self._presence.status(device, payload == ONLINE, now))
        elif payload:
            raise WireError(f"{device} has the status {payload[:40]!r}; expected online or offline")

    def heard(self, device: str, now: float) -> None:
        self._presence.heard(device, now)

    def tick(self, now: float) -> float | None:
        """Lose who is silent; returns when to look again."""
        self._tell(self._presence.silent(now))
        return self._presence.next_wakeup()

    def broker_lost(self) -> None:
        self._presence.broker_lost()

    def workers(self) -> int:
        """Tiles that the devices which are present work on at the same time."""
        return sum(introduction.workers for introduction in self._presence.present().values())

    def examined(self, found: Examination) -> None:
        """The gateway was examined: hold every device against that."""
        for problem in found.problems:
            log.warning("%s", one_line(problem))
        self.standard.examined(found)
        for device, info in self.infos.items():
            self._tell(self._presence.judged(device, self._introduction(info)))

    def operators(self, device: str) -> frozenset[str]:
        """What a device may do; nothing where it is not present."""
        introduction = self._presence.present().get(device)
        return introduction.operators if introduction else frozenset()

    def present(self) -> tuple[str, ...]:
        return tuple(sorted(self._presence.present()))

    def _introduced(self, device: str, payload: bytes, retained: bool, now: float) -> None:
        if not payload:
            return  # somebody cleared the topic; the next check-in fills it
        info = self._decoder.decode(payload)
        self._remember(device, info)
        self._tell(self._presence.info(device, self._introduction(info), retained, now))

    def _introduction(self, info: DeviceInfo) -> Introduction:
        offer = self.standard.judge(info)
        return Introduction(info.boot, info.workers, offer.abilities, info.draining, offer.lacks)

    def _remember(self, device: str, info: DeviceInfo) -> None:
        self.infos[device] = info
        if len(self.infos) > KNOWN_DEVICES:
            present = self._presence.present()
            strangers = (one for one in self.infos if one not in present)
            self.infos.pop(next(strangers, device))

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case DeviceJoined(device, workers=workers):
                    log.info("%s is here, %d worker(s)", device, workers)
                case DeviceLost(device, reason):
                    log.warning("%s is lost: %s", device, reason)
                case DeviceDraining(device):
                    log.info("%s takes no more tiles", device)
            self._feed(event)
