"""What a gateway says of itself and its jobs: presence and job status, retained."""

from __future__ import annotations

import platform
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from fogmqtt import __version__
from fogmqtt.errors import NotConnected
from fogmqtt.gateway.jobs.model import Client, Outcome
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.gateway.loop import now
from fogmqtt.gateway.server.broker_health import DROPPED
from fogmqtt.transport.base import Transport, Will
from fogmqtt.wire.messages import Decoder, GatewayInfo, JobStatus, encode
from fogmqtt.wire.topics import OFFLINE, ONLINE, Topics

#: Seconds that a job's status stays on its topic after it was last said.
STATUS_KEPT_S = 600.0


class StatusPublisher:
    """Says it through a transport; silent while there is no link.

    Only what `stays` is retained: the broker would keep the name of every one-off run for ever.
    `expires` says whether the broker clears the topics of jobs by itself, as MQTT 5 does.
    """

    def __init__(
        self,
        gateway: str,
        topics: Topics,
        pipelines: Mapping[str, str],
        *,
        stays: bool = True,
        expires: bool = True,
    ) -> None:
        self._gateway = gateway
        self._topics = topics
        self._pipelines = dict(pipelines)
        self._stays = stays
        self._expires = expires
        self._sequence = 0
        #: Why no image is taken at this time; said with the next introduction.
        self.paused = ""
        self._decoder = Decoder(GatewayInfo)
        #: When to clear which job's topic, oldest first: MQTT 3.1.1 knows no expiry.
        self._spoken: OrderedDict[str, float] = OrderedDict()
        self.boot = secrets.token_hex(8)

    def hears(self) -> tuple[str, ...]:
        """The filters of what is said to a gateway, submissions aside."""
        topics = self._topics
        return (
            topics.device("+", "status"),
            topics.device("+", "info"),
            topics.results(self._gateway, "+"),
            topics.gateway(self._gateway, "info"),
            DROPPED,
        )

    @property
    def will(self) -> Will:
        return Will(self._topics.gateway(self._gateway, "status"), OFFLINE)

    def introduce(self, transport: Transport, uptime_s: float) -> None:
        """Info first, then `online`: whoever sees us online can read who we are."""
        self._sequence += 1
        info = GatewayInfo(
            boot=self.boot,
            sequence=self._sequence,
            uptime_s=uptime_s,
            host=platform.node(),
            versions={"fogmqtt": __version__, "python": platform.python_version()},
            pipelines=self._pipelines,
            paused=self.paused,
        )
        topic = self._topics.gateway(self._gateway, "info")
        transport.publish(topic, encode(info, "base64"), retain=self._stays)
        self._status(transport, ONLINE)

    def leave(self, transport: Transport) -> None:
        """Say `offline` ourselves: a clean DISCONNECT suppresses the will."""
        if not self._expires:
            self.tick(transport, float("inf"))
        try:
            self._status(transport, OFFLINE)
        except NotConnected:
            return  # the will has said it

    def read(self, payload: bytes) -> GatewayInfo:
        """What a gateway says of itself. Raises WireError."""
        return self._decoder.decode(payload)

    def job(self, transport: Transport, status: JobStatus, now: float) -> None:
        """Say how a job goes, retained, on its own topic; lost without a link."""
        topic = self._topics.job_status(status.job)
        said = msgspec.structs.replace(status, gateway=self._gateway)
        try:
            transport.publish(topic, encode(said, "base64"), retain=True, expires_s=STATUS_KEPT_S)
        except NotConnected:
            return  # who asks later sees the next one
        self._spoken.pop(topic, None)
        self._spoken[topic] = now + STATUS_KEPT_S

    def tick(self, transport: Transport, now: float) -> float | None:
        """Clear the topics of jobs that are long over; returns when to look again."""
        while self._spoken:
            topic, clear_at = next(iter(self._spoken.items()))
            if clear_at > now:
                return clear_at
            del self._spoken[topic]
            try:
                transport.publish(topic, b"", retain=True)
            except NotConnected:
                continue  # gone with the broker, or expired there
        return None

    def _status(self, transport: Transport, status: bytes) -> None:
        transport.publish(self._topics.gateway(self._gateway, "status"), status, retain=self._stays)


#: Seconds between two words about the same job.
EVERY_S = 1.0

State = Literal["accepted", "running", "waiting", "done", "failed"]
Say = Callable[[JobStatus], None]


def status(report: Report, state: State, error: str | None = None) -> JobStatus:
    """How a job goes, as it travels."""
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
    )


@dataclass(slots=True)
class JobStatusClient:
    """A client that says everything to everybody before it tells the real one."""

    client: Client
    say: Say
    said_at: float = float("-inf")

    def progress(self, report: Report) -> None:
        if now() - self.said_at >= EVERY_S:
            self.said_at = now()
            self.say(status(report, "running"))
        self.client.progress(report)

    def notice(self, job: str, text: str) -> None:
        self.client.notice(job, text)

    def deliver(self, outcome: Outcome) -> None:
        self.client.deliver(outcome)

    def ended(self, outcome: Outcome) -> None:
        self.say(status(outcome.report, "failed" if outcome.error else "done", outcome.error))
        self.client.ended(outcome)
