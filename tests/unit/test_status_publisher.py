"""What a gateway publishes: presence that stays, job topics that are cleared in the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

import msgspec
import pytest

from fogmqtt.errors import NotConnected, TooLarge, WireError
from fogmqtt.gateway.broker_link import BrokerLink
from fogmqtt.gateway.devices import status_publisher
from fogmqtt.gateway.devices.status_publisher import (
    EVERY_S,
    STATUS_KEPT_S,
    StatusPublisher,
    gateway_will,
)
from fogmqtt.gateway.events import EventBus, JobEnded, JobProgressed
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.transport.base import Will
from fogmqtt.wire.messages import JobStatus
from fogmqtt.wire.topics import Topics

JOB = "fog/v1/jobs/j1/status"
STATUS = "fog/v1/gateways/mariem/status"


@dataclass
class RecordingLink:
    """A link that records what is published."""

    connected: bool = True
    limit: int = 268_435_455
    published: list[tuple[str, bytes, bool]] = field(default_factory=list)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, **_: object) -> None:
        if not self.connected:
            raise NotConnected("no link")
        if len(payload) > self.limit:
            raise TooLarge(f"{topic}: {len(payload)} bytes")
        self.published.append((topic, payload, retain))

    def states(self) -> list[str]:
        return [msgspec.json.decode(payload)["state"] for _, payload, _ in self.published]


class Clock:
    """Seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(status_publisher, "now", made)
    return made


def publisher(link: RecordingLink, **options: bool) -> StatusPublisher:
    pipelines = {"edges": "canny"}
    return StatusPublisher(cast(BrokerLink, link), "mariem", Topics(), pipelines, "b1", **options)


def test_what_does_not_fit_into_a_packet_is_published_in_short() -> None:
    link = RecordingLink(limit=4000)
    pipelines = {f"p{number}": "gray | canny" for number in range(200)}
    status = StatusPublisher(cast(BrokerLink, link), "mariem", Topics(), pipelines, "b1")
    status.introduce()
    assert [topic.split("/")[-1] for topic, _, _ in link.published] == ["info", "status"]
    devices = {f"device-{number}": 1 for number in range(400)}
    status.job(JobStatus(job="j1", state="failed", devices=devices, error="no; " * 2000))
    told = msgspec.json.decode(link.published[-1][1], type=JobStatus)
    assert (told.state, told.devices) == ("failed", {})
    assert told.error is not None
    assert told.error.startswith("no; ")


def test_the_info_comes_before_online_and_both_are_retained() -> None:
    link = RecordingLink()
    made = publisher(link)
    made.introduce()
    (topic, info, retained), status = link.published
    assert (topic, retained) == ("fog/v1/gateways/mariem/info", True)
    assert made.read(info).boot == "b1"
    assert made.read(info).pipelines == {"edges": "canny"}
    assert status == (STATUS, b"online", True)


def test_a_one_off_gateway_leaves_nothing_retained() -> None:
    link = RecordingLink()
    made = publisher(link, stays=False)
    made.introduce()
    made.leave()
    assert [retained for _, _, retained in link.published] == [False] * 3


def test_it_publishes_offline_itself_and_so_does_its_will() -> None:
    link = RecordingLink()
    publisher(link).leave()
    assert link.published == [(STATUS, b"offline", True)]
    assert gateway_will("mariem", Topics()) == Will(STATUS, b"offline")


def test_a_pause_and_its_end_are_in_the_info() -> None:
    link = RecordingLink()
    made = publisher(link)
    made.pause("the disk is full")
    made.pause("")
    paused = [made.read(payload).paused for topic, payload, _ in link.published[::2]]
    assert paused == ["the disk is full", ""]


def test_without_a_link_nothing_is_published_and_nothing_raises(clock: Clock) -> None:
    link = RecordingLink(connected=False)
    made = publisher(link, expires=False)
    made.introduce()
    made.job(JobStatus(job="j1", state="running"))
    made.leave()
    assert link.published == []


def test_a_jobs_topic_names_the_gateway() -> None:
    link = RecordingLink()
    publisher(link).job(JobStatus(job="j1", state="running"))
    ((topic, payload, retained),) = link.published
    assert (topic, retained) == (JOB, True)
    assert msgspec.json.decode(payload)["gateway"] == "mariem"


def test_a_jobs_topic_is_cleared_when_its_last_status_is_old(clock: Clock) -> None:
    link = RecordingLink()
    made = publisher(link)
    made.job(JobStatus(job="j1", state="running"))
    clock.now += 5.0
    made.job(JobStatus(job="j1", state="done"))
    link.published.clear()

    async def clear() -> None:
        clearing = asyncio.get_running_loop().create_task(made.clear_expired())
        await asyncio.sleep(0)
        clearing.cancel()

    clock.now += STATUS_KEPT_S - 1
    asyncio.run(clear())
    assert link.published == []
    clock.now += 1
    asyncio.run(clear())
    assert link.published == [(JOB, b"", True)]


def test_where_nothing_expires_it_clears_its_job_topics_when_it_leaves() -> None:
    link = RecordingLink()
    made = publisher(link, expires=False)
    made.job(JobStatus(job="j1", state="done"))
    made.leave()
    assert link.published[1:] == [(JOB, b"", True), (STATUS, b"offline", True)]


def test_the_progress_of_a_job_is_published_once_a_second_and_its_end_at_once(
    clock: Clock,
) -> None:
    link = RecordingLink()
    made = publisher(link)
    report = Report("j1", "photo.png", "canny")

    async def follow() -> None:
        bus = EventBus()
        following = asyncio.get_running_loop().create_task(made.follow(bus.subscribe("status")))
        for _ in range(3):
            bus.emit(JobProgressed(report))
            await asyncio.sleep(0)
        clock.now += EVERY_S
        bus.emit(JobProgressed(report))
        await asyncio.sleep(0)
        bus.emit(JobEnded(report, None))
        bus.close()
        await following

    asyncio.run(follow())
    assert link.states() == ["running", "running", "done"]


def test_what_is_no_gateways_info_is_refused() -> None:
    with pytest.raises(WireError):
        publisher(RecordingLink()).read(b"{}")
