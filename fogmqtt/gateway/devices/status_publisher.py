"""What a gateway publishes about itself and its jobs: presence and job status, retained."""

from __future__ import annotations

import asyncio
import platform
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from fogmqtt import __version__
from fogmqtt.errors import ListenerDropped, NotConnected, TooLarge
from fogmqtt.gateway.broker_link import BrokerLink
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.events import (
    EventSubscription,
    GatewayEvent,
    JobEnded,
    JobProgressed,
)
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.transport.base import Will
from fogmqtt.wire.messages import Decoder, GatewayInfo, JobStatus, encode
from fogmqtt.wire.topics import OFFLINE, ONLINE, Topics

#: The characters of each text of a status that is sent in short.
_SHORT: Final = 1000
#: Seconds that a job's status stays on its topic after it was last published.
STATUS_KEPT_S: Final = 600.0
#: Seconds between two messages about the progress of one job.
EVERY_S: Final = 1.0

State = Literal["accepted", "running", "waiting", "done", "failed"]


def gateway_will(gateway_id: str, topics: Topics) -> Will:
    """What the broker publishes when this gateway vanishes."""
    return Will(topics.gateway(gateway_id, "status"), OFFLINE)


class StatusPublisher:
    """Publishes through a link; nothing is published while the link is down.

    If `stays` is true, presence is retained. A one-off gateway does not stay: the broker would
    keep its topics for ever. `expires` says whether the broker clears the topics of jobs by
    itself, as MQTT 5 does.
    """

    def __init__(
        self,
        link: BrokerLink,
        gateway_id: str,
        topics: Topics,
        pipelines: Mapping[str, str],
        boot: str,
        *,
        stays: bool = True,
        expires: bool = True,
    ) -> None:
        self._link = link
        self._gateway_id = gateway_id
        self._topics = topics
        self._pipelines = dict(pipelines)
        self.boot = boot
        self._stays = stays
        self._expires = expires
        self._started_at = now()
        self._sequence = 0
        self._paused = ""
        self._decoder = Decoder(GatewayInfo)
        #: The topics of jobs with the time to clear them, oldest first: MQTT 3.1.1 has no expiry.
        self._clear_at: OrderedDict[str, float] = OrderedDict()

    @property
    def uptime_s(self) -> float:
        """Seconds since the gateway was built."""
        return now() - self._started_at

    @property
    def paused(self) -> str:
        """Why no image is taken at this time; empty if images are taken."""
        return self._paused

    def pause(self, reason: str) -> None:
        """Publish why no image is taken; with an empty reason, that images are taken again."""
        self._paused = reason
        self.introduce()

    def introduce(self) -> None:
        """Publish info, then `online`: whoever sees us online can read our info."""
        self._sequence += 1
        info = GatewayInfo(
            boot=self.boot,
            sequence=self._sequence,
            uptime_s=self.uptime_s,
            host=platform.node(),
            versions={"fogmqtt": __version__, "python": platform.python_version()},
            pipelines=self._pipelines,
            clock=round(time.time(), 1),
            paused=self._paused,
        )
        try:
            try:
                self._publish_info(info)
            except TooLarge:
                self._publish_info(msgspec.structs.replace(info, pipelines={}))
            self._publish_status(ONLINE)
        except NotConnected:
            return  # the next connection does it

    def leave(self) -> None:
        """Publish `offline` ourselves: a clean DISCONNECT suppresses the will."""
        if not self._expires:
            self._clear(float("inf"))
        try:
            self._publish_status(OFFLINE)
        except NotConnected:
            return  # the will has done it

    def read(self, payload: bytes | memoryview) -> GatewayInfo:
        """Decode the info that a gateway publishes about itself. Raises WireError."""
        return self._decoder.decode(payload)

    async def follow(self, events: EventSubscription) -> None:
        """Publish the status of jobs, each at most once in EVERY_S seconds until its end."""
        published_at: dict[str, float] = {}
        with events:
            try:
                async for event in events:
                    self._follow(event, published_at)
            except ListenerDropped:
                return  # only the status topics of jobs stop changing; the bus has logged it

    def job(self, status: JobStatus) -> None:
        """Publish a job's status on its own topic, in short if the broker takes small packets only.

        It is lost while the link is down.
        """
        topic = self._topics.job_status(status.job)
        message = msgspec.structs.replace(status, gateway=self._gateway_id)
        try:
            try:
                self._publish_job(topic, message)
            except TooLarge:
                self._publish_job(topic, in_short(message))
        except NotConnected:
            return  # the next message replaces it
        self._clear_at.pop(topic, None)
        self._clear_at[topic] = now() + STATUS_KEPT_S

    async def clear_expired(self) -> None:
        """Clear the topics of jobs that ended long ago, until cancelled."""
        while True:
            await asyncio.sleep(self._clear(now()))

    def _follow(self, event: GatewayEvent, published_at: dict[str, float]) -> None:
        match event:
            case JobProgressed(report) if report.listed:
                moment = now()
                if moment - published_at.get(report.job, float("-inf")) >= EVERY_S:
                    published_at[report.job] = moment
                    self.job(job_status(report, "running"))
            case JobEnded(report, error) if report.listed:
                published_at.pop(report.job, None)
                self.job(job_status(report, "failed" if error else "done", error))
            case _:
                pass

    def _clear(self, until: float) -> float:
        """Clear topics that are due; returns the seconds until the next one is."""
        while self._clear_at:
            topic, clear_at = next(iter(self._clear_at.items()))
            if clear_at > until:
                return clear_at - until
            del self._clear_at[topic]
            try:
                self._link.publish(topic, b"", retain=True)
            except NotConnected:
                continue  # the topic is gone with the broker
        return STATUS_KEPT_S

    def _publish_job(self, topic: str, message: JobStatus) -> None:
        payload = encode(message, "base64")
        self._link.publish(topic, payload, retain=True, expires_s=STATUS_KEPT_S)

    def _publish_info(self, info: GatewayInfo) -> None:
        topic = self._topics.gateway(self._gateway_id, "info")
        self._link.publish(topic, encode(info, "base64"), retain=self._stays)

    def _publish_status(self, status: bytes) -> None:
        topic = self._topics.gateway(self._gateway_id, "status")
        self._link.publish(topic, status, retain=self._stays)


def in_short(status: JobStatus) -> JobStatus:
    """Return a status that fits into any packet: the beginning of its texts, and no devices."""
    error = None if status.error is None else status.error[:_SHORT]
    return msgspec.structs.replace(
        status, devices={}, error=error, pipeline=status.pipeline[:_SHORT]
    )


def job_status(report: Report, state: State, error: str | None = None) -> JobStatus:
    """Return a job's status message."""
    return JobStatus(
        job=report.job,
        state=state,
        pipeline=report.pipeline,
        done=report.done,
        total=report.tiles,
        devices={device: share.tiles for device, share in report.devices.items()},
        seconds=round(report.seconds, 3),
        dropped=report.dropped,
        error=error,
        traceparent=report.traceparent,
    )
