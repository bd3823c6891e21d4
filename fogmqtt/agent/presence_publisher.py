"""Publishes the retained info and the retained status of a device."""

from __future__ import annotations

import os
import time

from fogmqtt.agent import host_info
from fogmqtt.conformance.report import ConformanceReport
from fogmqtt.errors import NotConnected
from fogmqtt.operators.api import registry
from fogmqtt.transport.base import Transport, Will
from fogmqtt.wire.messages import MAX_PROBLEMS, DeviceInfo, UpdateReport, encode
from fogmqtt.wire.topics import OFFLINE, ONLINE, Topics
from fogmqtt.workers.resources import machine_id

#: A copy of fogmqtt.images.codec.names(), which loads numpy. A test compares the two.
CODECS = ("raw", "png", "bitplanes")


class PresencePublisher:
    """Publishes info and status of one device. Without a connection it publishes nothing.

    `emulated_speed` is that of one worker of an emulated board, in core pixels per second. Such a
    device announces a host of its own, because it does not share this machine's cores as others do.
    """

    def __init__(
        self,
        device: str,
        topics: Topics,
        workers: int,
        max_tile_pixels: int = 0,
        emulated_speed: float | None = None,
    ) -> None:
        self.boot = os.urandom(8).hex()
        self.operators = list(registry.names())
        self._info_topic = topics.device(device, "info")
        self._status_topic = topics.device(device, "status")
        self._workers = workers
        self._max_tile_pixels = max_tile_pixels
        self._sequence = 0
        self._host, self._machine = host_info.host_name(), machine_id()
        if emulated_speed is not None:
            self._machine = ""
            self._host = f"{self._host}, emulated as {device}"
        self._emulated_speed = emulated_speed
        self._versions = host_info.versions()
        self._conformance: ConformanceReport | None = None
        #: Whether the device does `update`, and what it does about one.
        self.updates = False
        self.update: UpdateReport | None = None

    @property
    def will(self) -> Will:
        """The last will: status `offline`."""
        return Will(self._status_topic, OFFLINE)

    def set_conformance(self, report: ConformanceReport) -> None:
        """Use the results of the conformance run in each info from now on.

        The run may go on, and give another report.
        """
        self._conformance = report
        if report.operators:  # the report knows plug-ins, and which operators work
            working = (name for name, one in report.operators.items() if not one.problem)
            self.operators = sorted((*working, *report.unchecked))
        # The report has the version of the loaded OpenCV, which can differ from its package.
        self._versions |= report.versions

    def check_in(
        self, transport: Transport, uptime_s: float, *, held: int, done: int, draining: bool
    ) -> bool:
        """Publish the info, retained. Returns False if there is no connection.

        `held` is the number of queued and running tiles, `done` the number of ended ones.
        """
        self._sequence += 1
        report = self._conformance or ConformanceReport()
        info = DeviceInfo(
            boot=self.boot,
            sequence=self._sequence,
            uptime_s=uptime_s,
            workers=self._workers,
            max_tile_pixels=self._max_tile_pixels,
            operators=self.operators,
            codecs=list(CODECS),
            host=self._host,
            machine=self._machine,
            versions=self._versions,
            draining=draining,
            tiles_held=held,
            tiles_done=done,
            temperature_c=host_info.temperature_c(),
            load=host_info.load_average(),
            fingerprints=report.fingerprints,
            rates=self._rates(report),
            conformance_running=self._conformance is None or not self._conformance.is_complete,
            problems=report.problems[:MAX_PROBLEMS],
            clock=round(time.time(), 1),
            updates=self.updates,
            update=self.update,
        )
        return _publish(transport, self._info_topic, encode(info, "base64"))

    def _rates(self, report: ConformanceReport) -> dict[str, float]:
        """Nanoseconds per pixel by operator; for an emulated board, those of its speed."""
        if self._emulated_speed is None:
            return dict(report.rates)
        return dict.fromkeys(report.rates, 1e9 / self._emulated_speed)

    def publish_online(self, transport: Transport) -> bool:
        """Publish status `online`, retained. Returns False if there is no connection.

        Call it after `check_in`, so that whoever reads the status can read the info. The broker's
        answer is a `Published` with the token ONLINE.
        """
        return _publish(transport, self._status_topic, ONLINE, token=ONLINE)

    def publish_offline(self, transport: Transport) -> bool:
        """Publish status `offline`, retained. Returns False if there is no connection.

        The broker does not publish the last will after a clean disconnect.
        """
        return _publish(transport, self._status_topic, OFFLINE)


def _publish(transport: Transport, topic: str, payload: bytes, *, token: object = None) -> bool:
    try:
        transport.publish(topic, payload, retain=True, token=token)
    except NotConnected:
        return False  # the agent publishes all of it again after a reconnect
    return True
