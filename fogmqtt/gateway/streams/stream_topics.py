"""The topics of a stream: what it is doing, its facts, and its results as image files."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Final

import msgspec

from fogmqtt.errors import NotConnected
from fogmqtt.gateway.broker_link import BrokerLink
from fogmqtt.gateway.streams.outputs import PublishedFrame
from fogmqtt.gateway.streams.stream import StreamView
from fogmqtt.gateway.threads import Threads
from fogmqtt.images.encode import encode
from fogmqtt.images.result_format import ResultFormat
from fogmqtt.transport.base import MessageProperties
from fogmqtt.wire.stream_messages import FrameFacts, StreamAges, StreamState, utc_text
from fogmqtt.wire.topics import Topics

DISABLED: Final = b"disabled"
ON: Final = b"ON"
OFF: Final = b"OFF"
#: Seconds that a frame may wait at the broker for a subscriber.
_EXPIRES_S: Final = 1.0


class StreamTopics:
    """Publishes the retained topics of one stream; nothing is published while the link is down."""

    def __init__(self, name: str, link: BrokerLink, topics: Topics, gateway: str) -> None:
        self._name = name
        self._link = link
        self._topics = topics
        self._gateway = gateway
        #: What was last published on each topic, to publish changes only.
        self._said: dict[str, bytes] = {}

    def forget(self) -> None:
        """The link is new: say everything again."""
        self._said.clear()

    def say_status(self, status: bytes, *, enabled: bool) -> None:
        """Publish whether the stream runs."""
        self._say("status", status)
        self._say("enabled", ON if enabled else OFF)

    def say(self, view: StreamView) -> None:
        """Publish the state of the source and the figures."""
        self._say("source", view.source.state.encode())
        self._publish("state", msgspec.json.encode(stream_state(view, self._gateway)), retain=True)

    def say_motion(self, is_there: bool) -> None:
        """Publish whether something is seen."""
        self._say("motion", ON if is_there else OFF)

    def say_source(self, state: str) -> None:
        self._say("source", state.encode())

    def _say(self, leaf: str, payload: bytes) -> None:
        if self._said.get(leaf) != payload and self._publish(leaf, payload, retain=True):
            self._said[leaf] = payload

    def _publish(self, leaf: str, payload: bytes, *, retain: bool = False) -> bool:
        try:
            self._link.publish(self._topics.stream(self._name, leaf), payload, retain=retain)
        except NotConnected:
            return False  # the next connection does it
        return True


class TopicOutput:
    """Publishes results on `frames/<name>/frame`, and facts on `streams/<name>/facts`; QoS 0."""

    needs_original = False

    def __init__(
        self, name: str, link: BrokerLink, topics: Topics, threads: Threads, form: ResultFormat
    ) -> None:
        self._name = name
        self._link = link
        self._topics = topics
        self._threads = threads
        self._form = form

    async def publish(self, frame: PublishedFrame) -> None:
        """Publish a result. Raises ImageError, TooLarge."""
        with suppress(NotConnected):  # nobody is there to see it
            if frame.image is None:
                self._publish_facts(frame)
                return
            encoded = await self._threads.begin_tile(partial(encode, [frame.image], self._form))
            self._link.publish(
                self._topics.frame(self._name, "frame"),
                encoded.data,
                qos=0,
                expires_s=_EXPIRES_S,
                content_type=self._form.media_type,
                properties=MessageProperties(user=_properties(frame)),
            )

    async def close(self) -> None:
        """Nothing is open."""

    def _publish_facts(self, frame: PublishedFrame) -> None:
        message = FrameFacts(
            seq=frame.seq,
            captured_at=utc_text(frame.captured_utc),
            age_s=round(frame.age_s, 4),
            epoch=frame.epoch,
            digest=frame.digest(),
            facts=frame.facts or {},
        )
        payload = msgspec.json.encode(message)
        self._link.publish(self._topics.stream(self._name, "facts"), payload, qos=0)


def _properties(frame: PublishedFrame) -> tuple[tuple[str, str], ...]:
    return (
        ("seq", str(frame.seq)),
        ("captured", utc_text(frame.captured_utc)),
        ("age_ms", f"{1000 * frame.age_s:.1f}"),
        ("epoch", str(frame.epoch)),
        ("digest", frame.digest()),
    )


def stream_state(view: StreamView, gateway: str) -> StreamState:
    """Return what is said of a stream."""
    books, ages, source = view.books, view.age_s, view.source
    return StreamState(
        gateway=gateway,
        pipeline=view.pipeline,
        seq=view.seq,
        epoch=view.epoch,
        fps_in=round(view.fps_in, 2),
        fps_out=round(view.fps_out, 2),
        age_s=StreamAges(*(round(one, 4) for one in (ages.p50, ages.p95, ages.p99, ages.max))),
        received=books.received,
        dropped=books.drops(),
        begun=books.begun,
        published=books.published,
        late=books.late,
        failed=books.failed,
        in_flight=books.in_flight,
        split=view.way,
        clock=view.clock,
        width=source.width,
        height=source.height,
        codec=source.codec,
        reconnects=source.reconnects,
        source=source.state,
        reason=source.reason,
        verified=view.verified,
        wrong=view.wrong,
        reseeds=view.reseeds,
        warming=view.warming,
        error=view.error,
    )
