"""Answers come where a submitter wants them, with the marks of its request, and it may cancel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fogmqtt.transport.base import MessageProperties, Received
from fogmqtt.transport.memory import MemoryTransport
from tests.fog import Inbox, wait_for
from tests.serving import PICTURE, Serving

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REPLIES = "fog/v1/replies"
MARKED = MessageProperties(
    response_topic=f"{REPLIES}/me/rpc/17", correlation=b"\x00\xff17", traceparent=TRACE
)
PIPELINES = {"edges": "gray | canny", "measure": "gray | histogram"}


@dataclass
class Submitter:
    """A client of a serving gateway that hears all replies."""

    serving: Serving
    inbox: Inbox = field(default_factory=Inbox)

    def __post_init__(self) -> None:
        self.link = MemoryTransport(self.serving.broker, "submitter", self.inbox.put)
        self.link.subscribe(f"{REPLIES}/#")
        self.link.start()

    def submit(
        self,
        to: str = "edges/me",
        data: bytes = PICTURE,
        marks: MessageProperties = MessageProperties(),  # noqa: B008  # frozen
    ) -> None:
        self.link.publish(f"fog/v1/submit/{to}", data, properties=marks)

    def cancel(self, what: bytes | dict[str, str], reply: str = "me", **marks: Any) -> None:
        payload = what if isinstance(what, bytes) else json.dumps(what).encode()
        self.link.publish(f"fog/v1/cancel/{reply}", payload, properties=MessageProperties(**marks))

    def hear(self, below: str) -> Received:
        return self.inbox.message(f"{REPLIES}/{below}", within=60)

    def status(self, *states: str, at: str = "me/status") -> dict[str, Any]:
        """The next status with one of these states."""
        while True:
            status: dict[str, Any] = json.loads(self.hear(at).payload)
            if status["state"] in states:
                return status

    def all_until_end(self) -> dict[str, Received]:
        """All messages until the final status, by topic below replies."""
        heard: dict[str, Received] = {}
        while True:
            message = self.inbox.take(Received, within=60)
            heard[message.topic.removeprefix(f"{REPLIES}/")] = message
            is_status = message.topic.endswith("/status")
            if is_status and json.loads(message.payload)["state"] in ("done", "failed"):
                return heard


@contextmanager
def serving(spool: Path | None = None, *, works: bool = True) -> Iterator[Submitter]:
    local = "always" if works else "never"
    with Serving(str(spool or ""), local, pipelines=PIPELINES) as made:  # type: ignore[arg-type]
        yield Submitter(made)


@pytest.fixture(scope="module")
def me() -> Iterator[Submitter]:
    with serving() as made:
        yield made


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Submitter]:
    """A submitter of a gateway whose jobs wait for devices that never come."""
    with serving(tmp_path / "spool", works=False) as made:
        yield made


def test_the_one_answer_comes_on_the_response_topic(me: Submitter) -> None:
    me.submit(marks=MARKED)
    heard = me.all_until_end()
    assert sorted(heard) == ["me/rpc/17", "me/rpc/17/status"]
    answer = heard["me/rpc/17"]
    assert bytes(answer.payload[:4]) == b"\x89PNG"
    assert answer.properties.content_type == "image/png"


def test_every_answer_carries_the_correlation_data_and_the_trace(me: Submitter) -> None:
    for marks in (MARKED, MessageProperties(correlation=b"no response topic", traceparent=TRACE)):
        me.submit("measure/me", marks=marks)
        heard = me.all_until_end()
        assert len(heard) == 3
        for message in heard.values():
            assert message.properties.correlation == marks.correlation
            assert message.properties.traceparent == TRACE


def test_facts_are_the_answer_of_a_measuring_pipeline(me: Submitter) -> None:
    me.submit("measure/me", marks=MARKED)
    heard = me.all_until_end()
    assert sorted(heard) == ["me/rpc/17", "me/rpc/17/image", "me/rpc/17/status"]
    assert json.loads(heard["me/rpc/17"].payload)
    assert heard["me/rpc/17"].properties.content_type == "application/json"


@pytest.mark.parametrize(
    ("to", "data"), [("edges/me", b"\x89PNG but no image"), ("edgse/me", PICTURE)]
)
def test_the_reason_of_a_failure_is_the_answer_as_well(me: Submitter, to: str, data: bytes) -> None:
    me.submit(to, data, MARKED)
    answer = me.hear("me/rpc/17")
    assert json.loads(answer.payload)["error"]
    assert answer.properties.correlation == MARKED.correlation


@pytest.mark.parametrize(
    "topic",
    [
        "fog/v1/submit/edges/me",
        "fog/v1/devices/eya/control",
        "elsewhere",
        "fog/v1/replies/",
        "fog/v1/replies/me/../x",
        "fog/v1/replies/a/b/c/d/e",
        "other/fog/v1/replies/me",
        "fog/v1/replies/you",
        "fog/v1/replies/mene",
    ],
)
def test_a_response_topic_elsewhere_is_refused_in_words(me: Submitter, topic: str) -> None:
    marks = MessageProperties(response_topic=topic, correlation=b"7")
    me.submit(marks=marks)
    message = me.hear("me/status")
    assert message.properties.correlation == b"7"
    error = json.loads(message.payload)["error"]
    assert f"the Response Topic '{topic}' is not answered; use fog/v1/replies/" in error


def test_a_tag_is_a_level_of_every_answer_and_a_field_of_its_status(me: Submitter) -> None:
    tag = "2026-11-29T10:00:00.5_A"
    me.submit(f"measure/me/{tag}")
    heard = me.all_until_end()
    assert sorted(heard) == [f"me/{tag}/{leaf}" for leaf in ("facts", "image", "status")]
    assert json.loads(heard[f"me/{tag}/status"].payload)["tag"] == tag


@pytest.mark.parametrize("tag", ["bad tag", "x" * 65, "é", "-"])
def test_a_tag_that_cannot_be_echoed_is_refused_in_words(me: Submitter, tag: str) -> None:
    me.submit(f"edges/me/{tag}")
    assert "is not a tag; use 1 to 64 letters" in me.status("failed")["error"]


def test_correlation_data_that_is_too_long_is_refused_in_words(me: Submitter) -> None:
    me.submit(marks=MessageProperties(correlation=bytes(4097)))
    assert "4097 bytes; use 4096 at most" in me.status("failed")["error"]


def test_a_trace_stands_in_the_status_and_a_malformed_one_is_ignored(me: Submitter) -> None:
    state = (("tracestate", "vendor=a1"),)
    for given, kept in ((TRACE, TRACE), (TRACE.upper(), ""), ("00-" + "0" * 52, "")):
        me.submit(marks=MessageProperties(traceparent=given, user=state))
        status = me.status("done", "failed")
        assert (status["state"], status.get("traceparent", "")) == ("done", kept)
        assert status.get("tracestate", "") == ("vendor=a1" if kept else "")


def test_the_marks_survive_a_restart_of_the_gateway(tmp_path: Path) -> None:
    with serving(tmp_path / "spool", works=False) as before:
        before.submit("edges/me/t1", marks=MARKED)
        before.status("accepted", at="me/rpc/17/status")
    with serving(tmp_path / "spool") as after:
        heard = after.all_until_end()
    assert sorted(heard) == ["me/rpc/17", "me/rpc/17/status"]
    assert json.loads(heard["me/rpc/17/status"].payload)["tag"] == "t1"
    for message in heard.values():
        assert message.properties.correlation == MARKED.correlation
        assert message.properties.traceparent == TRACE


# Cancelling.


def test_a_submitter_cancels_its_job_and_no_dead_letter_stays(idle: Submitter) -> None:
    idle.submit()
    job = idle.status("waiting")["job"]
    idle.cancel({"job": job})
    status = idle.status("failed")
    assert (status["job"], status["error"]) == (job, "cancelled by its submitter")
    spool = Path(idle.serving.config.gateway.spool)
    wait_for(lambda: not list(spool.glob("j*")), what="an empty spool")
    assert not list(spool.glob("dead/*"))


def test_a_tag_cancels_all_jobs_that_have_it_and_no_others(idle: Submitter) -> None:
    for to in ("edges/me/a", "edges/me/a", "edges/me/b", "edges/you/a"):
        idle.submit(to)
    idle.cancel({"tag": "a"})  # at once: the images are on their way to the disk still
    assert [idle.status("failed", at="me/a/status")["tag"] for _ in range(2)] == ["a", "a"]
    assert sorted(job.request.name for job in idle.serving.server.gateway.jobs()) == [
        "submit/edges/me/b",
        "submit/edges/you/a",
    ]


def test_a_cancellation_with_a_response_topic_is_answered_there(idle: Submitter) -> None:
    idle.submit("edges/me/a")
    idle.status("waiting", at="me/a/status")
    marks = {"response_topic": f"{REPLIES}/me/rpc", "correlation": b"c"}
    for expected in ("failed", "unknown"):
        idle.cancel({"tag": "a"}, **marks)
        message = idle.hear("me/rpc")
        assert json.loads(message.payload)["state"] == expected
        assert message.properties.correlation == b"c"
        wait_for(lambda: idle.serving.idle, what="the end of the job")


def test_nobody_cancels_the_job_of_another_reply_name(idle: Submitter) -> None:
    idle.submit()
    job = idle.status("waiting")["job"]
    idle.cancel({"job": job}, reply="you")
    status = idle.status("unknown", at="you/status")
    assert (status["job"], status["gateway"]) == (job, "mariem")
    assert f"has no unfinished job '{job}' of 'you'" in status["error"]
    assert not idle.serving.idle


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "the message is empty"),
        (b"j123", "not a valid message"),
        (b"{}", 'name a "job" or a "tag"'),
        (b'{"job": 7}', "not a valid message"),
        (b'{"job": "j1", "tag": "a"}', "has no unfinished job 'j1'"),
    ],
)
def test_a_cancellation_that_means_no_job_is_answered_in_words(
    idle: Submitter, payload: bytes, reason: str
) -> None:
    idle.cancel(payload, correlation=b"c")
    message = idle.inbox.take(Received)
    assert reason in json.loads(message.payload)["error"]
    assert message.properties.correlation == b"c"
