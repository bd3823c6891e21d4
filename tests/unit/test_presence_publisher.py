"""What a gateway says: presence that stays, job topics that are cleared in the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import msgspec
import pytest

from fogmqtt.errors import NotConnected, WireError
from fogmqtt.gateway.devices.status_publisher import STATUS_KEPT_S, StatusPublisher
from fogmqtt.transport.base import Transport, Will
from fogmqtt.wire.messages import JobStatus
from fogmqtt.wire.topics import Topics

JOB = "fog/v1/jobs/j1/status"
STATUS = "fog/v1/gateways/mariem/status"


@dataclass
class Paper:
    """A transport that takes down what is said."""

    linked: bool = True
    said: list[tuple[str, bytes, bool]] = field(default_factory=list)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, **_: object) -> None:
        if not self.linked:
            raise NotConnected("no link")
        self.said.append((topic, payload, retain))

    @property
    def transport(self) -> Transport:
        return cast(Transport, self)


def voice(**options: bool) -> StatusPublisher:
    return StatusPublisher("mariem", Topics(), {"edges": "canny"}, **options)


def test_the_info_comes_before_online_and_both_stay() -> None:
    paper, speaker = Paper(), voice()
    speaker.introduce(paper.transport, 1.5)
    (topic, info, kept), status = paper.said
    assert (topic, kept) == ("fog/v1/gateways/mariem/info", True)
    assert speaker.read(info).boot == speaker.boot
    assert speaker.read(info).pipelines == {"edges": "canny"}
    assert status == (STATUS, b"online", True)


def test_a_one_off_gateway_leaves_nothing_retained() -> None:
    paper, speaker = Paper(), voice(stays=False)
    speaker.introduce(paper.transport, 0.0)
    speaker.leave(paper.transport)
    assert [kept for _, _, kept in paper.said] == [False] * 3


def test_it_says_offline_itself_and_so_does_its_will() -> None:
    paper, speaker = Paper(), voice()
    speaker.leave(paper.transport)
    assert paper.said == [(STATUS, b"offline", True)]
    assert speaker.will == Will(STATUS, b"offline")


def test_without_a_link_it_is_silent() -> None:
    paper, speaker = Paper(linked=False), voice(expires=False)
    speaker.leave(paper.transport)
    speaker.job(paper.transport, JobStatus(job="j1", state="running"), 0.0)
    assert speaker.tick(paper.transport, 1e9) is None


def test_a_jobs_topic_names_the_gateway_and_is_cleared_in_time() -> None:
    paper, speaker = Paper(), voice()
    speaker.job(paper.transport, JobStatus(job="j1", state="running"), 0.0)
    topic, payload, kept = paper.said.pop()
    assert (topic, kept) == (JOB, True)
    assert msgspec.json.decode(payload)["gateway"] == "mariem"
    speaker.job(paper.transport, JobStatus(job="j1", state="done"), 5.0)
    paper.said.clear()
    assert speaker.tick(paper.transport, STATUS_KEPT_S) == 5.0 + STATUS_KEPT_S
    assert speaker.tick(paper.transport, 5.0 + STATUS_KEPT_S) is None
    assert paper.said == [(JOB, b"", True)]


def test_where_nothing_expires_it_takes_its_job_topics_with_it() -> None:
    paper, speaker = Paper(), voice(expires=False)
    speaker.job(paper.transport, JobStatus(job="j1", state="done"), 0.0)
    speaker.leave(paper.transport)
    assert paper.said[1:] == [(JOB, b"", True), (STATUS, b"offline", True)]


def test_what_is_no_gateways_info_is_refused() -> None:
    with pytest.raises(WireError):
        voice().read(b"{}")
