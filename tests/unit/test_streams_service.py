"""Configured streams: what a serving gateway publishes of them, and how they are switched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from fogmqtt.config import GatewayConfig, StreamSettings
from fogmqtt.errors import ConfigError
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.streams.streams import check_streams
from fogmqtt.transport.base import Received
from fogmqtt.transport.memory import MemoryTransport
from fogmqtt.wire.stream_messages import FrameFacts, StreamState
from tests.frame_sources import PlayedSource
from tests.gateway_rig import Rig, config, eventually, run

PICTURES = [np.random.default_rng(seed).integers(0, 256, (48, 64), np.uint8) for seed in range(3)]
YARD = StreamSettings(source="rtsp://camera/yard", pipeline="invert", max_age_s=30.0)


class Watched:
    """A gateway with streams, the sources it opened, and what it published."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.opened: list[PlayedSource] = []
        self.heard: list[Received] = []
        self.sources: list[PlayedSource] = []

    def open_source(self, name: str, settings: StreamSettings) -> PlayedSource:
        source = self.sources.pop(0) if self.sources else PlayedSource(PICTURES, fps=50)
        self.opened.append(source)
        return source

    @asynccontextmanager
    async def gateway(self, **streams: StreamSettings) -> AsyncIterator[Gateway]:
        made = replace(config(local="auto"), streams=streams or {"yard": YARD})
        self.client = MemoryTransport(self.rig.broker, "watcher", self._hear)
        for topic_filter in ("fog/v1/streams/#", "fog/v1/frames/#"):
            self.client.subscribe(topic_filter)
        self.client.start()
        gateway = self.rig.gateway(made, serves=True, open_source=self.open_source)
        async with gateway:
            yield gateway

    def _hear(self, event: object) -> None:
        if isinstance(event, Received):
            self.heard.append(event)

    def said(self, leaf: str) -> list[bytes]:
        topic = f"fog/v1/{leaf}"
        return [bytes(one.payload) for one in list(self.heard) if one.topic == topic]

    def switch(self, word: bytes) -> None:
        self.client.publish("fog/v1/streams/yard/enabled/set", word)


def test_a_stream_says_what_it_does_and_its_results_carry_where_they_are_from() -> None:
    async def test() -> None:
        watched = Watched()
        async with watched.gateway():
            await eventually(lambda: len(watched.said("frames/yard/frame")) > 2)
            await eventually(lambda: watched.said("streams/yard/state"))
            assert watched.said("streams/yard/source")[-1] == b"connected"
            assert watched.said("streams/yard/status")[-1] == b"online"
            assert watched.said("streams/yard/enabled") == [b"ON"]
        assert watched.said("streams/yard/status")[-1] == b"offline"
        state = msgspec.json.decode(watched.said("streams/yard/state")[-1], type=StreamState)
        assert (state.gateway, state.pipeline) == ("mariem", "invert")
        drops = sum(state.dropped.values())
        assert state.received - drops - state.begun in (0, 1)
        assert state.begun == state.published + state.late + state.failed + state.in_flight
        seqs = []
        for message in watched.heard:
            if message.topic != "fog/v1/frames/yard/frame":
                continue
            user = dict(message.properties.user)
            seqs.append(int(user["seq"]))
            assert float(user["age_ms"]) >= 0
            assert user["captured"].endswith("+00:00")
            assert message.properties.content_type == "image/png"
            image = cv2.imdecode(np.frombuffer(message.payload, np.uint8), cv2.IMREAD_UNCHANGED)
            assert any(np.array_equal(image, 255 - one) for one in PICTURES)
        assert seqs == sorted(set(seqs))

    run(test())


def test_what_is_retained_of_a_stream_is_small_text() -> None:
    async def test() -> None:
        watched = Watched()
        async with watched.gateway():
            await eventually(lambda: watched.said("frames/yard/frame"))
            await eventually(lambda: watched.said("streams/yard/state"))
            kept = [topic for topic in watched.rig.broker.retained() if "streams/yard" in topic]
        leaves = ("enabled", "source", "state", "status")
        assert sorted(kept) == [f"fog/v1/streams/yard/{leaf}" for leaf in leaves]

    run(test())


def test_a_stream_can_be_switched_off_and_on() -> None:
    async def test() -> None:
        watched = Watched()
        async with watched.gateway():
            await eventually(lambda: watched.said("frames/yard/frame"))
            watched.switch(b"OFF")
            await eventually(lambda: watched.said("streams/yard/status")[-1] == b"disabled")
            await eventually(lambda: watched.opened[0].closed)
            assert watched.said("streams/yard/enabled")[-1] == b"OFF"
            watched.switch(b"ON")
            await eventually(lambda: len(watched.opened) == 2)
            await eventually(lambda: watched.said("streams/yard/status")[-1] == b"online")

    run(test())


def test_a_stream_that_is_switched_on_at_once_again_runs() -> None:
    async def test() -> None:
        watched = Watched()
        async with watched.gateway():
            await eventually(lambda: watched.said("frames/yard/frame"))
            for word in (b"OFF", b"ON", b"OFF", b"ON"):
                watched.switch(word)
            await eventually(lambda: len(watched.opened) >= 2)
            before = len(watched.said("frames/yard/frame"))
            await eventually(lambda: len(watched.said("frames/yard/frame")) > before)
            assert watched.said("streams/yard/enabled")[-1] == b"ON"

    run(test())


def test_a_stream_that_is_off_at_first_opens_no_source() -> None:
    async def test() -> None:
        watched = Watched()
        async with watched.gateway(yard=replace(YARD, enabled=False)):
            await eventually(lambda: watched.said("streams/yard/status"))
            assert watched.said("streams/yard/status") == [b"disabled"]
            assert watched.opened == []
            watched.switch(b"ON")
            await eventually(lambda: watched.opened)

    run(test())


@pytest.mark.parametrize("word", [b"on", b"", b"\xff", b"ON" * 50_000])
def test_any_other_word_switches_nothing(word: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        watched = Watched()
        async with watched.gateway():
            await eventually(lambda: watched.said("frames/yard/frame"))
            watched.switch(word)
            await eventually(lambda: "switches no stream; send ON or OFF" in caplog.text)
            assert not watched.opened[0].closed

    run(test())


def test_a_source_that_cannot_be_opened_is_told_and_other_streams_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        watched = Watched()
        opens = watched.open_source

        def open_source(name: str, settings: StreamSettings) -> PlayedSource:
            if name == "gate":
                raise ConfigError("there is no camera at the gate")
            return opens(name, settings)

        watched.open_source = open_source  # type: ignore[method-assign]
        async with watched.gateway(gate=YARD, yard=YARD):
            await eventually(lambda: watched.said("frames/yard/frame"))
            assert "gate: there is no camera at the gate" in caplog.text
            assert watched.said("streams/gate/status")[-1] == b"offline"

    run(test())


def test_another_gateway_with_a_stream_of_this_name_is_told_unless_it_has_just_ended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        watched = Watched()
        async with watched.gateway() as gateway:
            topic = "fog/v1/streams/yard/state"
            await eventually(lambda: watched.said("streams/yard/state"))

            def says(name: str) -> None:
                state = StreamState(gateway=name)
                watched.client.publish(topic, msgspec.json.encode(state))

            says("salma")
            says("mariem")
            watched.client.publish(topic, b"none")
            await eventually(lambda: "no figures of a stream" in caplog.text)
            (card,) = gateway.stream_cards()
            assert "salma" not in card.sentence
            says("salma")
            await eventually(lambda: "salma" in gateway.stream_cards()[0].sentence)
            (card,) = gateway.stream_cards()
            assert "Gateway salma has a stream of this name, too" in card.sentence
            assert card.tone == "bad"
        assert "Rename one of them" in caplog.text

    run(test())


def test_facts_come_on_a_topic_of_their_own() -> None:
    async def test() -> None:
        watched = Watched()
        async with watched.gateway(yard=replace(YARD, pipeline="histogram")):
            await eventually(lambda: watched.said("streams/yard/facts"))
        facts = msgspec.json.decode(watched.said("streams/yard/facts")[0], type=FrameFacts)
        assert facts.seq >= 1
        assert facts.facts
        assert watched.said("frames/yard/frame") == []

    run(test())


def test_after_a_loss_of_the_broker_all_is_said_again() -> None:
    async def test() -> None:
        watched = Watched()
        async with watched.gateway():
            await eventually(lambda: watched.said("streams/yard/state"))
            watched.rig.broker.stop()
            watched.rig.broker.start()
            await eventually(lambda: "fog/v1/streams/yard/status" in watched.rig.broker.retained())

    run(test())


def refusal(**settings: Any) -> str:
    made = replace(GatewayConfig(), streams={"yard": replace(YARD, **settings)})
    with pytest.raises(ConfigError) as refused:
        check_streams(made)
    return str(refused.value)


def test_a_stream_that_cannot_be_is_refused_by_its_name() -> None:
    assert "streams.yard: gopher:// is no source" in refusal(source="gopher://camera")
    assert "a user stands in the address" in refusal(source="rtsp://me:secret@camera/1")
    assert refusal(pipeline="grey").startswith("streams.yard: column 1: ")
    assert "output 'radio' is unknown; use one of topic" in refusal(output=("radio",))
    assert "give the path of a folder, as in folder:out" in refusal(output=("folder",))
    assert "it takes no value" in refusal(output=("topic:x",))
    assert "cannot be slowed" in refusal(keep="all")
    assert "diff needs all frames in one place" in refusal(pipeline="diff", split="frames")
    assert "mog2 depends on all earlier frames" in refusal(pipeline="gray | mog2", verify=0.1)


def test_tiles_of_jobs_stay_small_while_a_stream_runs() -> None:
    async def test() -> None:
        watched = Watched()
        limits: list[float] = []
        async with watched.gateway(yard=replace(YARD, max_age_s=2.0)) as gateway:
            scheduler = gateway._dispatcher._scheduler
            await eventually(lambda: watched.said("frames/yard/frame"))
            limits.append(scheduler._table.fleet.most_tile_s)
            watched.switch(b"OFF")
            await eventually(lambda: scheduler._table.fleet.most_tile_s == float("inf"))
        assert limits == [0.25]

    run(test())
