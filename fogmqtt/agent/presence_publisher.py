"""What a device says of itself: who it is, how it fares, and whether it is there."""

from __future__ import annotations

import secrets

from fogmqtt.agent import host_info
from fogmqtt.conformance.report import ConformanceReport
from fogmqtt.errors import NotConnected
from fogmqtt.operators.api import registry
from fogmqtt.transport.base import Transport, Will
from fogmqtt.wire.messages import MAX_PROBLEMS, DeviceInfo, encode
from fogmqtt.wire.topics import OFFLINE, ONLINE, Topics

#: fogmqtt.images.codec.names(), which cannot be asked without loading numpy; a test compares.
CODECS = ("raw", "png", "planes")


class PresencePublisher:
    """Says it through a transport; silent while there is no link."""

    def __init__(self, device: str, topics: Topics, workers: int, max_tile_pixels: int = 0) -> None:
        self.boot = secrets.token_hex(8)
        self.operators = list(registry.names())
        self._info = topics.device(device, "info")
        self._status = topics.device(device, "status")
        self._workers = workers
        self._max_tile_pixels = max_tile_pixels
        self._sequence = 0
        self._host = host_info.host()
        self._versions = host_info.versions()
        self._examination: ConformanceReport | None = None

    @property
    def will(self) -> Will:
        return Will(self._status, OFFLINE)

    def examined(self, found: ConformanceReport) -> None:
        """What our operators do, to be told from now on."""
        self._examination = found
        if found.operators:  # a module's are known only now, and a package's may not work
            self.operators = sorted(
                name for name, one in found.operators.items() if not one.problem
            )
        # OpenCV itself knows better than its package.
        self._versions |= found.versions

    def check_in(
        self, transport: Transport, uptime_s: float, *, held: int, done: int, draining: bool
    ) -> bool:
        """Say who we are and how we fare, retained. False where there is no link."""
        self._sequence += 1
        found = self._examination or ConformanceReport()
        info = DeviceInfo(
            boot=self.boot,
            sequence=self._sequence,
            uptime_s=uptime_s,
            workers=self._workers,
            max_tile_pixels=self._max_tile_pixels,
            operators=self.operators,
            codecs=list(CODECS),
            host=self._host,
            versions=self._versions,
            draining=draining,
            tiles_held=held,
            tiles_done=done,
            temperature_c=host_info.temperature_c(),
            load=host_info.load(),
            fingerprints=found.fingerprints,
            rates=found.rates,
            conformance_running=self._examination is None,
            problems=found.problems[:MAX_PROBLEMS],
        )
        return _say(transport, self._info, encode(info, "base64"))

    def online(self, transport: Transport) -> bool:
        """After `check_in`: whoever sees us online can read who we are."""
        return _say(transport, self._status, ONLINE)

    def offline(self, transport: Transport) -> bool:
        """Say it ourselves: after a clean goodbye the broker does not."""
        return _say(transport, self._status, OFFLINE)


def _say(transport: Transport, topic: str, payload: bytes) -> bool:
    try:
        transport.publish(topic, payload, retain=True)
    except NotConnected:
        return False  # all of it is said anew when the link is back
    return True
