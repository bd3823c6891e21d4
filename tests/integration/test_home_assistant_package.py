"""Home Assistant's own code takes what we announce, without leaving anything out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fogmqtt.gateway.home_assistant.payloads import DeviceFacts, Discovery, StreamFacts
from fogmqtt.wire.topics import Topics
from tests.fog import need
from tests.home_assistant_package import complaints, installed

ROOT = Path(__file__).parents[2]


def announced() -> list[dict[str, Any]]:
    made = Discovery(Topics(), "mariem", "homeassistant")
    messages = [
        made.of_gateway(),
        made.of_device(DeviceFacts("eya", version="1.2.0", workers=4, has_temperature=True)),
        made.of_device(DeviceFacts("ali")),
        made.of_stream(StreamFacts("yard", has_events=True)),
        made.of_stream(StreamFacts("gate", has_events=True, is_motion=True)),
        made.of_stream(StreamFacts("porch", has_preview=False)),
    ]
    return [json.loads(one.payload) for one in messages]


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_home_assistant_itself_takes_all_that_is_announced() -> None:
    need(os.geteuid() == 0, "a root that can be changed", "call this as root")
    need(shutil.which("debootstrap"), "debootstrap", "apt install debootstrap")
    try:
        system = installed(ROOT / ".containers")
    except (AssertionError, subprocess.CalledProcessError) as problem:
        pytest.skip(f"Home Assistant does not install here: {problem}")
    payloads = announced()
    assert complaints(system, payloads) == [[] for _ in payloads]
    platforms = {one["platform"] for each in payloads for one in each["components"].values()}
    assert platforms == {"sensor", "binary_sensor", "switch", "event", "image", "camera"}

    # It would tell what it does not take.
    broken = announced()[3]
    broken["components"]["preview"].pop("topic")
    broken["components"]["motion"]["pin"] = 1
    broken["components"]["fps"]["value_template"] = "{{ x"
    nameless = announced()[0]
    nameless["device"].pop("identifiers")
    found, (of_device, *_) = complaints(system, [broken, nameless])
    assert found[0].startswith("preview: required key not provided @ data['topic']")
    assert found[1].startswith("fps: invalid template")
    assert found[2] == "motion: pin is ignored"
    assert of_device.startswith("the device: Device must have at least one identifying value")
