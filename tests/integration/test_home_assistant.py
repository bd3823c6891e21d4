"""Home Assistant's side of a real broker: what it finds, what it hears again, what is removed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest

from fogmqtt.transport.base import Received
from tests.fog import Probe, wait_for
from tests.home_assistant_schema import SCHEMA
from tests.processes import PATIENCE_S, Fog

pytestmark = pytest.mark.timeout(240)

ON = {"HOMEASSISTANT__DISCOVERY": "auto"}
GATEWAY = "homeassistant/device/fog-v1-gateway-mariem/config"
EYA = "homeassistant/device/fog-v1-gateway-mariem-device-eya/config"
EYA_STATE = "fog/v1/gateways/mariem/devices/eya"
FILTERS = (
    "homeassistant/device/+/config",
    "fog/v1/gateways/mariem/+",
    "fog/v1/gateways/+/devices/+",
)


class HomeAssistant:
    """What a client knows that hears what Home Assistant would hear."""

    def __init__(self, client: Probe) -> None:
        self.client = client
        self.retained: dict[str, bytes] = {}
        #: How often each topic was published.
        self.times: dict[str, int] = {}

    def until(self, topic: str, times: int = 1) -> None:
        """Wait until a topic was published so often."""

        def heard() -> bool:
            self.listen()
            return self.times.get(topic, 0) >= times

        wait_for(heard, within=PATIENCE_S, what=f"{topic}, {times} times, among {self.times}")

    def until_gone(self, topic: str) -> None:
        def gone() -> bool:
            self.listen()
            return topic not in self.retained and topic in self.times

        wait_for(gone, within=PATIENCE_S, what=f"the end of {topic}")

    def listen(self) -> None:
        for event in self.client.inbox.all():
            self.client.inbox.take_where(lambda one, event=event: one is event, object)
            if isinstance(event, Received):
                self.times[event.topic] = self.times.get(event.topic, 0) + 1
                if event.payload:
                    self.retained[event.topic] = bytes(event.payload)
                else:
                    self.retained.pop(event.topic, None)

    def payload(self, topic: str) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(self.retained[topic])
        return made

    @property
    def announced(self) -> set[str]:
        return {topic for topic in self.retained if topic.endswith("/config")}


@contextmanager
def home_assistant(fog: Fog, client_id: str = "ha") -> Iterator[HomeAssistant]:
    with fog.probe(*FILTERS, client_id=client_id) as client:
        yield HomeAssistant(client)


def test_a_gateway_and_its_devices_come_stay_and_go(lone_fog: Fog) -> None:
    gateway = lone_fog.serve(**ON)
    (eya,) = lone_fog.fleet("eya")
    with home_assistant(lone_fog) as seen:
        seen.until(GATEWAY)
        seen.until(EYA)
        validator = jsonschema.Draft202012Validator(SCHEMA)
        for topic in (GATEWAY, EYA):
            assert [error.message for error in validator.iter_errors(seen.payload(topic))] == []
        # Each topic that an entity reads is there, and says what its template asks for.
        for topic in (GATEWAY, EYA):
            for component in seen.payload(topic)["components"].values():
                state = seen.payload(component["state_topic"])
                assert any(f"value_json.{name}" in component["value_template"] for name in state)
        assert seen.payload(EYA_STATE)["online"] is True

        # Home Assistant starts: it hears all of it again.
        before = dict(seen.times)
        seen.client.publish("homeassistant/status", b"online")
        for topic in (GATEWAY, EYA, EYA_STATE):
            seen.until(topic, before[topic] + 1)

        # A device that is away stays in the list, and says so.
        assert eya.stop() == 0
        wait_for(
            lambda: (seen.listen(), seen.payload(EYA_STATE)["online"])[1] is False,
            within=PATIENCE_S,
            what="eya to be away",
        )
        assert seen.payload(EYA_STATE)["activity"] == "offline"

        # One whose topics somebody cleared is gone for good.
        for leaf in ("status", "info"):
            seen.client.publish(f"fog/v1/devices/eya/{leaf}", b"", retain=True)
        seen.until_gone(EYA)
        seen.until_gone(EYA_STATE)
        assert seen.announced == {GATEWAY}
    assert gateway.stop() == 0


def test_the_next_start_removes_what_it_does_not_announce_itself(lone_fog: Fog) -> None:
    lone_fog.fleet("eya")
    gateway = lone_fog.serve(**ON)
    with home_assistant(lone_fog) as seen, lone_fog.probe("home/device/+/config") as moved:
        seen.until(EYA)
        # Even a gateway that is killed leaves the list behind. Here, the prefix changes…
        gateway.kill()
        gateway = lone_fog.serve(**ON, HOMEASSISTANT__PREFIX="home")
        seen.until_gone(GATEWAY)
        seen.until_gone(EYA)
        topic = GATEWAY.replace("homeassistant", "home")
        assert moved.message(topic, within=PATIENCE_S).payload
        assert EYA_STATE in seen.retained
        # …and here, the feature is off.
        gateway.kill()
        lone_fog.serve()
        seen.until_gone("fog/v1/gateways/mariem/announced")
        assert EYA_STATE not in seen.retained
        assert "fog/v1/gateways/mariem/state" not in seen.retained
        assert moved.message(topic, within=PATIENCE_S).payload == b""
    with home_assistant(lone_fog, "later") as later:
        later.until("fog/v1/gateways/mariem/info")
        assert later.announced == set()


def test_a_stream_comes_with_its_events_and_goes_when_it_is_not_configured_any_more(
    lone_fog: Fog,
) -> None:
    pictures = lone_fog.folder / "yard"
    pictures.mkdir()
    for number in range(8):
        picture = np.zeros((120, 160, 3), np.uint8)
        if 2 <= number < 5:
            picture[40:60, 10 * number : 10 * number + 20] = 255
        assert cv2.imwrite(str(pictures / f"{number}.png"), picture)
    config = lone_fog.folder / "fog.yaml"
    config.write_text(
        "homeassistant: {discovery: auto}\n"
        "streams: {yard: {source: yard, keep: all, pipeline: gray | components, "
        "events: {start: 1, end: 2}}}\n"
    )
    topic = "homeassistant/device/fog-v1-gateway-mariem-stream-yard/config"
    with (
        home_assistant(lone_fog) as seen,
        lone_fog.probe("fog/v1/streams/yard/#", "fog/v1/frames/yard/+") as camera,
    ):
        gateway = lone_fog.serve_with(config, GATEWAY__LOCAL="always")
        start = json.loads(camera.message("fog/v1/streams/yard/events", within=60).payload)
        end = json.loads(camera.message("fog/v1/streams/yard/events", within=60).payload)
        assert (start["event_type"], end["event_type"]) == ("start", "end")
        assert start["boxes"] == [[20.0, 40.0, 20.0, 20.0]]
        seen.until(topic)
        payload = seen.payload(topic)
        assert [
            one.message for one in jsonschema.Draft202012Validator(SCHEMA).iter_errors(payload)
        ] == []
        assert payload["components"].keys() >= {"enabled", "motion", "event", "snapshot"}
        # What Home Assistant reads for the entities is retained at the broker.
        named = [payload["components"][key] for key in ("motion", "enabled", "source")]
        topics = [one["state_topic"] for one in named]
        topics.append(payload["components"]["snapshot"]["image_topic"])
        with lone_fog.probe(*topics, client_id="late") as client:
            late = HomeAssistant(client)
            for one in topics:
                late.until(one)
        assert gateway.stop() == 0
        config.write_text("homeassistant: {discovery: auto}\n")
        lone_fog.serve_with(config)
        seen.until_gone(topic)
        assert GATEWAY in seen.retained
        # What the stream itself retained is gone, too.
        left = HomeAssistant(camera)
        for leaf in ("status", "enabled", "source", "state", "motion"):
            left.until_gone(f"fog/v1/streams/yard/{leaf}")
        for leaf in ("preview", "snapshot"):
            left.until_gone(f"fog/v1/frames/yard/{leaf}")
