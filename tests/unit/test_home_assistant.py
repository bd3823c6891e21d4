"""What Home Assistant is told, and that it understands it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fogmqtt.config import GatewayConfig, PreviewSettings, StreamSettings
from fogmqtt.config.schema import HomeAssistantSettings
from fogmqtt.gateway.home_assistant import announcer
from fogmqtt.gateway.home_assistant.payloads import (
    DeviceFacts,
    Discovery,
    RetainedMessage,
    StreamFacts,
)
from fogmqtt.gateway.streams.retained import is_retained_topic, retained_topics
from fogmqtt.transport.base import Received
from fogmqtt.transport.memory import MemoryTransport
from fogmqtt.wire.topics import Topics
from tests.fog import wait_for
from tests.gateway_rig import PlayedDevice
from tests.home_assistant_schema import SCHEMA
from tests.serving import Serving

DISCOVERY = Discovery(Topics(), "mariem", "homeassistant")
VALID = jsonschema.Draft202012Validator(SCHEMA)
YARD = StreamFacts("yard", has_events=True)
EYA = DeviceFacts("eya", version="1.2.0", workers=4, has_temperature=True)


def told(message: RetainedMessage) -> dict[str, Any]:
    """The payload, which Home Assistant must understand."""
    # Home Assistant's own expression of topics that it reads.
    assert re.fullmatch(r"homeassistant/device/[a-zA-Z0-9_-]+/config", message.topic)
    payload: dict[str, Any] = json.loads(message.payload)
    assert [error.message for error in VALID.iter_errors(payload)] == []
    return payload


def test_a_gateway_has_its_queue_its_jobs_its_devices_and_a_problem() -> None:
    message = DISCOVERY.of_gateway()
    assert message.topic == "homeassistant/device/fog-v1-gateway-mariem/config"
    components = told(message)["components"]
    assert {key: one["platform"] for key, one in components.items()} == {
        "running": "sensor",
        "waiting": "sensor",
        "devices": "sensor",
        "paused": "binary_sensor",
    }
    assert {one["state_topic"] for one in components.values()} == {"fog/v1/gateways/mariem/state"}


def test_a_device_has_its_state_its_speed_its_quarantine_and_its_temperature() -> None:
    payload = told(DISCOVERY.of_device(EYA))
    assert payload["components"].keys() == {"state", "speed", "quarantine", "temperature"}
    assert payload["device"] == {
        "identifiers": ["fog-v1-device-eya"],
        "name": "eya",
        "manufacturer": "fogmqtt",
        "model": "device with 4 workers",
        "sw_version": "1.2.0",
        "via_device": "fog-v1-gateway-mariem",
    }


def test_a_device_without_a_thermometer_or_a_version_has_neither_there() -> None:
    payload = told(DISCOVERY.of_device(DeviceFacts("porch")))
    assert "temperature" not in payload["components"]
    assert "sw_version" not in payload["device"]


def test_a_device_that_is_away_has_a_state_and_no_figures() -> None:
    components = told(DISCOVERY.of_device(EYA))["components"]
    assert "availability" not in components["state"]
    for key in ("speed", "temperature"):
        assert components[key]["availability_mode"] == "all"
        topics = [one["topic"] for one in components[key]["availability"]]
        assert topics == ["fog/v1/gateways/mariem/status", "fog/v1/gateways/mariem/devices/eya"]


def test_all_is_unavailable_while_the_gateway_is_away() -> None:
    for message in (DISCOVERY.of_gateway(), DISCOVERY.of_device(EYA)):
        assert told(message)["availability"] == [{"topic": "fog/v1/gateways/mariem/status"}]


def test_a_stream_has_a_switch_its_source_and_its_figures() -> None:
    payload = told(DISCOVERY.of_stream(StreamFacts("yard")))
    components = payload["components"]
    assert {key: one["platform"] for key, one in components.items()} == {
        "enabled": "switch",
        "preview": "camera",
        "source": "binary_sensor",
        "fps": "sensor",
        "age": "sensor",
        "dropped": "sensor",
    }
    # The switch is there while the stream is off; all others are not.
    assert [key for key, one in components.items() if "availability" not in one] == ["enabled"]
    assert payload["device"]["via_device"] == "fog-v1-gateway-mariem"
    assert components["preview"]["topic"] == "fog/v1/frames/yard/preview"
    without = DISCOVERY.of_stream(StreamFacts("yard", has_preview=False))
    assert "preview" not in told(without)["components"]


@pytest.mark.parametrize(
    ("is_motion", "name", "kind"), [(True, "Motion", "motion"), (False, "Seen", "occupancy")]
)
def test_a_stream_that_finds_things_has_events_and_a_picture_of_the_last(
    is_motion: bool, name: str, kind: str
) -> None:
    stream = StreamFacts("yard", has_events=True, is_motion=is_motion)
    components = told(DISCOVERY.of_stream(stream))["components"]
    assert (components["motion"]["name"], components["motion"]["device_class"]) == (name, kind)
    assert components["event"]["event_types"] == ["start", "update", "end"]
    assert components["snapshot"]["image_topic"] == "fog/v1/frames/yard/snapshot"


def test_no_two_entities_have_one_id_not_even_those_of_two_gateways() -> None:
    messages = [
        message
        for gateway in ("mariem", "salma")
        for made in [Discovery(Topics(), gateway, "homeassistant")]
        for message in (
            made.of_gateway(),
            made.of_device(EYA),
            made.of_device(DeviceFacts("ali")),
            made.of_stream(YARD),
        )
    ]
    assert len({message.topic for message in messages}) == len(messages)
    ids = [one["unique_id"] for each in messages for one in told(each)["components"].values()]
    assert len(set(ids)) == len(ids)


def test_a_device_at_two_gateways_is_one_device_for_home_assistant() -> None:
    other = Discovery(Topics(), "salma", "homeassistant")
    identifiers = [told(one.of_device(EYA))["device"]["identifiers"] for one in (DISCOVERY, other)]
    assert identifiers[0] == identifiers[1]


@pytest.mark.parametrize(
    ("topic", "is_ours"),
    [
        ("homeassistant/device/fog-v1-gateway-mariem/config", True),
        ("home/device/fog-v1-gateway-mariem-device-eya/config", True),
        ("fog/v1/gateways/mariem/state", True),
        ("fog/v1/gateways/mariem/devices/eya", True),
        ("homeassistant/device/fog-v1-gateway-salma/config", False),
        ("homeassistant/device/zigbee/config", False),
        ("fog/v1/gateways/salma/state", False),
        ("fog/v1/gateways/mariem/info", False),
        ("config", False),
    ],
)
def test_a_gateway_removes_its_own_topics_only(topic: str, is_ours: bool) -> None:
    assert DISCOVERY.owns(topic) == is_ours


@pytest.mark.parametrize(
    "wrong",
    [
        {"unique_id": None},
        {"state_topic": None},
        {"device_class": "enum"},
        {"options": ["a"]},
        {"entity_category": "config"},
        {"state_topic": "fog/+/x"},
        {"colour": "red"},
    ],
)
def test_the_schema_would_find_a_mistake(wrong: dict[str, Any]) -> None:
    payload = told(DISCOVERY.of_gateway())
    changed = {**payload["components"]["running"], **wrong}
    payload["components"]["running"] = {
        key: value for key, value in changed.items() if value is not None
    }
    assert not VALID.is_valid(payload)


@pytest.mark.parametrize(
    ("topic", "may_be_cleared"),
    [
        ("fog/v1/streams/yard/status", True),
        ("fog/v1/streams/yard/motion", True),
        ("fog/v1/frames/yard/preview", True),
        ("fog/v1/frames/yard/snapshot", True),
        ("fog/v1/frames/yard/status", False),
        ("fog/v1/streams/yard/preview", False),
        ("fog/v1/streams/+/status", False),
        ("other/streams/yard/status", False),
        ("fog/v1/devices/eya/status", False),
        ("status", False),
    ],
)
def test_of_a_list_that_anybody_wrote_only_topics_of_streams_are_cleared(
    topic: str, may_be_cleared: bool
) -> None:
    assert is_retained_topic(topic, Topics()) == may_be_cleared


def test_what_a_stream_retains_follows_from_what_is_configured() -> None:
    plain = StreamSettings(source="mqtt", pipeline="invert", preview=PreviewSettings(fps=0))
    finds = StreamSettings(source="mqtt", pipeline="codes")
    made = replace(GatewayConfig(), streams={"yard": plain, "gate": finds})
    found = retained_topics(made, Topics())
    always = ("status", "enabled", "source", "state")
    assert found == {
        *(f"fog/v1/streams/{name}/{leaf}" for name in ("yard", "gate") for leaf in always),
        "fog/v1/streams/gate/motion",
        "fog/v1/frames/gate/preview",
        "fog/v1/frames/gate/snapshot",
    }


def test_a_device_that_comes_or_goes_is_published_before_the_usual_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcer, "EVERY_S", 600.0)
    heard: dict[str, dict[str, Any]] = {}

    def hear(event: object) -> None:
        if isinstance(event, Received) and event.payload:
            heard[event.topic] = json.loads(bytes(event.payload))

    with Serving(str(tmp_path), homeassistant=HomeAssistantSettings(discovery="auto")) as serving:
        client = MemoryTransport(serving.broker, "ha", hear)
        client.subscribe("fog/v1/gateways/mariem/state")
        client.subscribe("fog/v1/gateways/mariem/devices/+")
        client.start()
        wait_for(lambda: "fog/v1/gateways/mariem/state" in heard, what="the gateway", within=60)
        device = PlayedDevice(serving.broker, "eya")
        device.start()
        state = "fog/v1/gateways/mariem/devices/eya"
        wait_for(lambda: heard.get(state, {}).get("online"), what="eya", within=60)
        device.leave()
        wait_for(lambda: not heard[state]["online"], what="eya's end", within=60)
